// A preview of a file in the main area. It shows the server's page around the preview; that page
// belongs to the server and keeps what it shows away from everything else, so the frame here has no
// rules of its own.

import { MainAreaWidget } from '@jupyterlab/apputils';
import { ToolbarButton, refreshIcon } from '@jupyterlab/ui-components';
import type { LabIcon } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

/** Shows one file. */
export class Preview extends MainAreaWidget<Widget> {
  constructor(options: Preview.IOptions) {
    const frame = document.createElement('iframe');
    frame.title = options.name;
    super({ content: new Widget({ node: frame }) });
    this._frame = frame;
    this.path = options.path;
    this.content.addClass('jsb-Preview-frame');
    this.addClass('jsb-Preview');
    this.title.label = options.name;
    this.title.caption = options.texts.__('Preview of %1', options.name);
    this.title.icon = options.icon;
    this.title.closable = true;
    this.toolbar.addItem(
      'refresh',
      new ToolbarButton({
        icon: refreshIcon,
        tooltip: options.texts.__('Show the file as it is now'),
        onClick: () => this.refresh()
      })
    );
    this._url = options.url;
    this.refresh();
  }

  /** Where the file is. */
  readonly path: string;

  /** Show the file as it is now. */
  refresh(): void {
    // JupyterLab's theme manager notes this on the body.
    const theme = document.body.dataset.jpThemeLight === 'false' ? 'dark' : 'light';
    this._frame.src = `${this._url}?theme=${theme}`;
  }

  private readonly _frame: HTMLIFrameElement;
  private readonly _url: string;
}

export namespace Preview {
  export interface IOptions {
    icon: LabIcon | undefined;
    name: string;
    /** With the drive's name. */
    path: string;
    texts: TranslationBundle;
    url: string;
  }
}
