// One drive for the files of all conversations. It knows no file: each conversation is a small
// Jupyter server of its own, and its contents API answers. The rule: a path begins with the
// conversation, so nothing of one can be taken for another's.

import { Drive } from '@jupyterlab/services';
import type { Contents, ServerConnection } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { SandboxApi, conversationSettings } from './api';
import { areaOf, toLocalPath, toPlace, UPLOADS } from './paths';
import type { IPlace } from './paths';
import { DRIVE_NAME } from './tokens';

/** The files of all conversations. */
export class SandboxDrive implements Contents.IDrive {
  constructor(api: SandboxApi) {
    this._api = api;
    this.serverSettings = api.serverSettings;
  }

  readonly name = DRIVE_NAME;
  readonly serverSettings: ServerConnection.ISettings;

  get fileChanged(): ISignal<this, Contents.IChangedArgs> {
    return this._fileChanged;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this._drives.forEach(drive => drive.dispose());
    this._drives.clear();
    Signal.clearData(this);
  }

  async get(localPath: string, options?: Contents.IFetchOptions): Promise<Contents.IModel> {
    const place = toPlace(localPath);
    return toOurs(place, await this._drive(place).get(place.path, options));
  }

  async getDownloadUrl(localPath: string): Promise<string> {
    const place = toPlace(localPath);
    return this._drive(place).getDownloadUrl(place.path);
  }

  async newUntitled(options: Contents.ICreateOptions = {}): Promise<Contents.IModel> {
    const place = toPlace(options.path ?? '');
    return toOurs(place, await this._drive(place).newUntitled({ ...options, path: place.path }));
  }

  async delete(localPath: string): Promise<void> {
    const place = toPlace(localPath);
    await this._drive(place).delete(place.path);
  }

  async rename(oldLocalPath: string, newLocalPath: string): Promise<Contents.IModel> {
    const [place, to] = [toPlace(oldLocalPath), toPlace(newLocalPath)];
    requireSame(place, to);
    return toOurs(place, await this._drive(place).rename(place.path, to.path));
  }

  async save(
    localPath: string,
    options?: Partial<Contents.IModel> & Contents.IContentProvisionOptions
  ): Promise<Contents.IModel> {
    const place = toPlace(localPath);
    const own = options === undefined ? {} : { ...options, path: place.path };
    return toOurs(place, await this._drive(place).save(place.path, own));
  }

  async copy(localPath: string, toLocalDir: string): Promise<Contents.IModel> {
    const [place, to] = [toPlace(localPath), toPlace(toLocalDir)];
    requireSame(place, to);
    return toOurs(place, await this._drive(place).copy(place.path, to.path));
  }

  async createCheckpoint(localPath: string): Promise<Contents.ICheckpointModel> {
    const place = toPlace(localPath);
    return this._drive(place).createCheckpoint(place.path);
  }

  async listCheckpoints(localPath: string): Promise<Contents.ICheckpointModel[]> {
    const place = toPlace(localPath);
    return this._drive(place).listCheckpoints(place.path);
  }

  async restoreCheckpoint(localPath: string, checkpointID: string): Promise<void> {
    const place = toPlace(localPath);
    await this._drive(place).restoreCheckpoint(place.path, checkpointID);
  }

  async deleteCheckpoint(localPath: string, checkpointID: string): Promise<void> {
    const place = toPlace(localPath);
    await this._drive(place).deleteCheckpoint(place.path, checkpointID);
  }

  /**
   * Upload into the folder uploads, streamed: JupyterLab's own way sends base64 in JSON.
   *
   * @param localPath - The folder that was shown; the conversation itself stands for its uploads.
   */
  async upload(localPath: string, file: File): Promise<Contents.IModel> {
    const { conversation, path } = toPlace(localPath);
    if (path !== '' && path !== UPLOADS) {
      throw new Error(`Files are uploaded into the folder ${UPLOADS}, and into no other.`);
    }
    await this._api.upload(conversation, file);
    const kept = toLocalPath({ conversation, path: `${UPLOADS}/${file.name}` });
    const model = await this.get(kept, { content: false });
    this._fileChanged.emit({ type: 'save', oldValue: null, newValue: model });
    return model;
  }

  private _drive(place: IPlace): Drive {
    const id = place.conversation;
    if (id === '') {
      throw new Error('This path names no conversation.');
    }
    let drive = this._drives.get(id);
    if (drive === undefined) {
      drive = new Drive({
        name: DRIVE_NAME,
        serverSettings: conversationSettings(this.serverSettings, id)
      });
      drive.fileChanged.connect((_, change) => {
        this._fileChanged.emit({
          type: change.type,
          oldValue: change.oldValue && renamed(place, change.oldValue),
          newValue: change.newValue && renamed(place, change.newValue)
        });
      });
      this._drives.set(id, drive);
    }
    return drive;
  }

  private readonly _api: SandboxApi;
  private readonly _drives = new Map<string, Drive>();
  private readonly _fileChanged = new Signal<this, Contents.IChangedArgs>(this);
  private _isDisposed = false;
}

/** Give what is in a folder. */
export function entriesOf(folder: Contents.IModel): Contents.IModel[] {
  const content: unknown = folder.content;
  return Array.isArray(content) ? content.filter(isEntry) : [];
}

/** Tell whether files can be uploaded into a folder by `SandboxDrive.upload`. */
export function takesUploads(localPath: string): boolean {
  return ['', UPLOADS].includes(areaOf(toPlace(localPath)));
}

function isEntry(value: unknown): value is Contents.IModel {
  return typeof value === 'object' && value !== null && 'name' in value && 'path' in value;
}

function requireSame(from: IPlace, to: IPlace): void {
  if (from.conversation !== to.conversation) {
    throw new Error('Files cannot be moved or copied between conversations.');
  }
}

/** Give a conversation's model its path in our drive; the models in a folder too. */
function toOurs(place: IPlace, model: Contents.IModel): Contents.IModel {
  const own = { ...model, ...renamed(place, model) };
  if (model.type === 'directory' && model.content !== null) {
    own.content = entriesOf(model).map(entry => ({ ...entry, ...renamed(place, entry) }));
  }
  return own;
}

function renamed(place: IPlace, model: Partial<Contents.IModel>): Partial<Contents.IModel> {
  const { conversation } = place;
  return { ...model, path: toLocalPath({ conversation, path: model.path ?? '' }) };
}
