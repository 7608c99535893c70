// The panel at the left: the conversations, and below them the files of the one that was chosen.

import { SidePanel, ToolbarButton, addIcon, refreshIcon } from '@jupyterlab/ui-components';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import type { Message } from '@lumino/messaging';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import { AccordionPanel, Widget } from '@lumino/widgets';
import { titleOf } from './conversations';
import type { Conversations } from './conversations';
import type { ConversationFiles } from './files';
import { sandboxIcon } from './icons';
import { ConversationList } from './list';
import { CommandIDs, TEXTS } from './tokens';

/** The panel's id in the application's shell. */
export const PANEL_ID = 'jsb-panel';

/** Shows conversations and their files. */
export class SandboxPanel extends SidePanel {
  constructor(options: SandboxPanel.IOptions) {
    super({ translator: options.translator });
    this._options = options;
    this._texts = options.translator.load(TEXTS);
    this.id = PANEL_ID;
    this.addClass('jsb-Panel');
    this.title.icon = sandboxIcon;
    this.title.caption = this._texts.__('Sandboxes');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this._texts.__('Sandboxes'));
    this.header.addWidget(heading(this._texts.__('Sandboxes')));
    this._addButtons();
    this._list = new ConversationList(options.conversations, this._texts);
    this._list.chosen.connect((_, id) => this.choose(id));
    this.addWidget(this._list);
    options.conversations.changed.connect(() => this._onChanged(), this);
  }

  /** The id of the conversation whose files are shown; '' for none. */
  get current(): string {
    return this._files?.conversation ?? '';
  }

  /** Another conversation's files are shown. */
  get currentChanged(): ISignal<this, string> {
    return this._currentChanged;
  }

  /** Show the files of a conversation; '' for none. */
  choose(id: string): void {
    if (id === this.current) {
      return;
    }
    this._files?.dispose();
    this._files = id === '' ? null : this._options.makeFiles(id, this._titleOf(id));
    if (this._files !== null) {
      this.addWidget(this._files);
      if (this.content instanceof AccordionPanel) {
        this.content.setRelativeSizes([2, 3]);
      }
    }
    this._list.current = id;
    this._currentChanged.emit(id);
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._options.conversations.isVisible = true;
    void this._options.conversations.refresh();
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._options.conversations.isVisible = false;
  }

  private _addButtons(): void {
    const { commands } = this._options;
    this.toolbar.addItem(
      'create',
      new ToolbarButton({
        icon: addIcon,
        label: this._texts.__('New'),
        tooltip: this._texts.__('New sandbox conversation'),
        onClick: () => void commands.execute(CommandIDs.create)
      })
    );
    this.toolbar.addItem(
      'refresh',
      new ToolbarButton({
        icon: refreshIcon,
        tooltip: this._texts.__('Refresh the list'),
        onClick: () => void commands.execute(CommandIDs.refresh)
      })
    );
  }

  private _onChanged(): void {
    if (this._files === null) {
      return;
    }
    const { conversations } = this._options;
    if (conversations.find(this.current) !== undefined) {
      this._files.title.label = this._titleOf(this.current);
    } else if (!conversations.hasMore && conversations.problem === '') {
      this.choose(''); // it was deleted elsewhere
    }
  }

  private _titleOf(id: string): string {
    const found = this._options.conversations.find(id);
    const untitled = this._texts.__('Conversation');
    return found === undefined ? `${untitled} ${id.slice(0, 8)}` : titleOf(found, untitled);
  }

  private readonly _options: SandboxPanel.IOptions;
  private readonly _texts: TranslationBundle;
  private readonly _list: ConversationList;
  private readonly _currentChanged = new Signal<this, string>(this);
  private _files: ConversationFiles | null = null;
}

export namespace SandboxPanel {
  export interface IOptions {
    commands: CommandRegistry;
    conversations: Conversations;
    /** Make the browser of a conversation's files. */
    readonly makeFiles: (id: string, title: string) => ConversationFiles;
    translator: ITranslator;
  }
}

function heading(text: string): Widget {
  const node = document.createElement('h2');
  node.className = 'jsb-Panel-heading';
  node.textContent = text;
  return new Widget({ node });
}
