// The document manager of one conversation: JupyterLab's, but with the conversation's services (so
// notebooks get its kernel), and previews for what must not be shown in the user's own page.

import { DocumentManager } from '@jupyterlab/docmanager';
import type { IDocumentWidget } from '@jupyterlab/docregistry';
import { decideOpening } from './opening';

// A sandbox has one Python kernel, so whatever a notebook asks for, it is that one.
const KERNEL = { autoStartDefault: true };
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
    const preference = opening.factory === 'Notebook' ? KERNEL : NO_KERNEL;
    const widget = super.open(path, opening.factory, undefined, {}, preference);
    if (widget !== undefined) {
      this._open.add(widget);
      widget.disposed.connect(() => this._open.delete(widget));
    }
    return widget;
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

  /** Whether any document is open. */
  get isUsed(): boolean {
    return this._open.size > 0;
  }

  private readonly _open = new Set<IDocumentWidget>();
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
