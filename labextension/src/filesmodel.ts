// The model of a conversation's file browser: JupyterLab's, but files are uploaded as they are
// (no base64, nothing whole in memory) and a refusal is always shown, after a drop too.

import { showErrorMessage } from '@jupyterlab/apputils';
import { shouldOverwrite } from '@jupyterlab/docmanager';
import type { IDocumentManager } from '@jupyterlab/docmanager';
import { FilterFileBrowserModel } from '@jupyterlab/filebrowser';
import { ServerConnection } from '@jupyterlab/services';
import type { Contents } from '@jupyterlab/services';
import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { entriesOf, takesUploads } from './drive';
import type { SandboxDrive } from './drive';
import { toLocalPath, toPlace, UPLOADS } from './paths';
import { DRIVE_NAME, TEXTS } from './tokens';

/** Lists a conversation's files; goes nowhere above them. */
export class ConversationFilesModel extends FilterFileBrowserModel {
  constructor(options: ConversationFilesModel.IOptions) {
    super({
      manager: options.documents,
      translator: options.translator,
      driveName: DRIVE_NAME,
      root: `${DRIVE_NAME}:${options.conversation}`,
      refreshStandby: () => !options.isSeen() || 'when-hidden'
    });
    super.connectionFailure.connect((_, error) => {
      if (error instanceof ServerConnection.ResponseError && error.response.status === 404) {
        options.onLost();
      } else {
        this._failed.emit(error);
      }
    });
    this._drive = options.drive;
    this._texts = options.translator.load(TEXTS);
  }

  /** The folder could not be fetched; but for one that is gone, which is no reason for a dialog. */
  override get connectionFailure(): ISignal<this, Error> {
    return this._failed;
  }

  /**
   * Upload a file; at the top it goes into the folder uploads, which is shown then.
   *
   * @param path - The folder; absent: the one that is shown.
   */
  override async upload(file: File, path: string = this.path): Promise<Contents.IModel> {
    try {
      return await this._put(file, path);
    } catch (error) {
      if (!(error instanceof Kept)) {
        const title = this._texts.__('“%1” was not uploaded', file.name);
        await showErrorMessage(title, error instanceof Error ? error : String(error));
      }
      throw error;
    }
  }

  private async _put(file: File, path: string): Promise<Contents.IModel> {
    const { contents } = this.manager.services;
    const local = contents.localPath(path);
    if (!takesUploads(local)) {
      return super.upload(file, path);
    }
    const { conversation } = toPlace(local);
    const folder = toLocalPath({ conversation, path: UPLOADS });
    const entries = entriesOf(await contents.get(`${DRIVE_NAME}:${folder}`));
    const isThere = entries.some(entry => entry.name === file.name);
    if (isThere && !(await shouldOverwrite(file.name, this.translator))) {
      throw new Kept();
    }
    const model = await this._drive.upload(folder, file);
    if (!this.isDisposed && contents.localPath(this.path) === conversation) {
      await this.cd(`/${folder}`);
    }
    return { ...model, path: `${DRIVE_NAME}:${model.path}` };
  }

  private readonly _failed = new Signal<this, Error>(this);
  private readonly _drive: SandboxDrive;
  private readonly _texts: TranslationBundle;
}

export namespace ConversationFilesModel {
  export interface IOptions {
    /** The conversation's id. */
    conversation: string;
    /** What opens its files. */
    documents: IDocumentManager;
    drive: SandboxDrive;
    /** Whether the browser can be seen; else the folder is not fetched again. */
    isSeen: () => boolean;
    /** Called when a folder is gone; perhaps its conversation is. */
    onLost: () => void;
    translator: ITranslator;
  }
}

/** The user kept the file that is there. */
class Kept extends Error {}
