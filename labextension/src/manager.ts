// The document manager of one conversation: JupyterLab's, but with the conversation's services, no
// kernel of the server, and previews for what must not be shown in the user's own page.

import { DocumentManager } from '@jupyterlab/docmanager';
import type { IDocumentWidget } from '@jupyterlab/docregistry';
import { decideOpening } from './opening';

const NO_KERNEL = { shouldStart: false, canStart: false, autoStartDefault: false };

/** Opens a conversation's files. */
export class ConversationDocumentManager extends DocumentManager {
  constructor(options: ConversationDocumentManager.IOptions) {
    super(options);
    this._baseUrl = options.baseUrl;
    this._showPreview = options.showPreview;
  }

  /** Open a file, or show its preview and give nothing. Kernels that are asked for are not used. */
  override open(path: string, widgetName = 'default'): IDocumentWidget | undefined {
    const opening = decideOpening(path, widgetName, this.registry, this._baseUrl);
    if ('previewUrl' in opening) {
      this._showPreview(path, opening.previewUrl);
      return undefined;
    }
    return super.open(path, opening.factory, undefined, {}, NO_KERNEL);
  }

  override openOrReveal(
    path: string,
    widgetName: string | null = null
  ): IDocumentWidget | undefined {
    const shown = this.findWidget(path, widgetName);
    return shown === undefined
      ? this.open(path, widgetName ?? 'default')
      : super.openOrReveal(path, widgetName);
  }

  override createNew(path: string, widgetName = 'default'): IDocumentWidget | undefined {
    return this.open(path, widgetName);
  }

  private readonly _baseUrl: string;
  private readonly _showPreview: (path: string, url: string) => void;
}

export namespace ConversationDocumentManager {
  export interface IOptions extends DocumentManager.IOptions {
    /** Of the server. */
    baseUrl: string;
    showPreview: (path: string, url: string) => void;
  }
}
