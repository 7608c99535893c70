// The open documents of all conversations. The rule: no file of a conversation is ever opened by
// the application's own document manager, which would offer it the server's kernels; `guard` sees
// to that.

import { PathExt } from '@jupyterlab/coreutils';
import type { IDocumentManager, IDocumentWidgetOpener } from '@jupyterlab/docmanager';
import type { IDocumentWidget } from '@jupyterlab/docregistry';
import type { ServiceManager } from '@jupyterlab/services';
import type { ITranslator } from '@jupyterlab/translation';
import type { Widget } from '@lumino/widgets';
import { ConversationDocumentManager } from './manager';
import { isOurs, toPlace } from './paths';
import { Preview } from './preview';
import { conversationServices } from './services';
import { TEXTS } from './tokens';
import type { ISandboxDocuments } from './tokens';

/** Opens files of conversations, each with its conversation's services. */
export class SandboxDocuments implements ISandboxDocuments {
  constructor(options: SandboxDocuments.IOptions) {
    this._options = options;
  }

  /** The id of the conversation whose files are shown; '' for none. */
  current = '';

  /** Give what opens a conversation's files. */
  of(conversation: string): IDocumentManager {
    let manager = this._managers.get(conversation);
    if (manager === undefined) {
      const { main, opener, services, translator } = this._options;
      const isUsed = (): boolean =>
        this.current === conversation || this._managers.get(conversation)?.isUsed === true;
      manager = new ConversationDocumentManager({
        registry: main.registry,
        manager: conversationServices(services, conversation, isUsed),
        opener,
        translator,
        baseUrl: services.serverSettings.baseUrl,
        showPreview: (path, url) => this._showPreview(path, url)
      });
      follow(main, manager);
      this._managers.set(conversation, manager);
    }
    return manager;
  }

  open(path: string, widgetName?: string): IDocumentWidget | undefined {
    return this.of(toPlace(path).conversation).openOrReveal(path, widgetName);
  }

  /** Close a conversation's documents, because it is gone. */
  async forget(conversation: string): Promise<void> {
    for (const preview of [...this._previews.values()]) {
      if (toPlace(preview.path).conversation === conversation) {
        preview.close();
      }
    }
    const manager = this._managers.get(conversation);
    if (manager !== undefined) {
      this._managers.delete(conversation);
      await manager.closeAll();
      manager.dispose();
      manager.services.dispose();
    }
  }

  /** Let the application's manager hand over what is ours, whoever asks it: a menu, a reload, … */
  guard(): void {
    const { main } = this._options;
    const open = main.open.bind(main);
    const createNew = main.createNew.bind(main);
    main.open = (path, widgetName, ...rest) =>
      isOurs(path) ? this.open(path, widgetName) : open(path, widgetName, ...rest);
    main.createNew = (path, widgetName, ...rest) =>
      isOurs(path) ? this.open(path, widgetName) : createNew(path, widgetName, ...rest);
  }

  private _showPreview(path: string, url: string): void {
    let preview = this._previews.get(path);
    if (preview === undefined) {
      const { main, translator } = this._options;
      const [fileType] = main.registry.getFileTypesForPath(path);
      preview = new Preview({
        icon: fileType?.icon,
        name: PathExt.basename(path),
        path,
        texts: translator.load(TEXTS),
        url
      });
      preview.disposed.connect(() => this._previews.delete(path));
      this._previews.set(path, preview);
    } else {
      preview.refresh();
    }
    this._options.show(preview);
  }

  private readonly _options: SandboxDocuments.IOptions;
  private readonly _managers = new Map<string, ConversationDocumentManager>();
  private readonly _previews = new Map<string, Preview>();
}

export namespace SandboxDocuments {
  export interface IOptions {
    /** The application's own. */
    main: IDocumentManager;
    opener: IDocumentWidgetOpener;
    services: ServiceManager.IManager;
    /** Put a widget into the main area and activate it. */
    show: (widget: Widget) => void;
    translator: ITranslator;
  }
}

/** Let a manager save as often as the user has set for all. */
function follow(main: IDocumentManager, manager: IDocumentManager): void {
  const take = (): void => {
    manager.autosave = main.autosave;
    manager.autosaveInterval = main.autosaveInterval;
    manager.confirmClosingDocument = main.confirmClosingDocument;
  };
  take();
  main.stateChanged.connect(take, manager);
}
