// The files of one conversation: JupyterLab's file browser with the buttons that make sense here.

import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { FileBrowser, Uploader } from '@jupyterlab/filebrowser';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ToolbarButton, homeIcon, notebookIcon, refreshIcon } from '@jupyterlab/ui-components';
import { ConversationFilesModel } from './filesmodel';
import { UPLOADS } from './paths';
import { DRIVE_NAME, TEXTS } from './tokens';

/** Shows a conversation's files. */
export class ConversationFiles extends FileBrowser {
  constructor(options: ConversationFiles.IOptions) {
    const { conversation, translator } = options;
    const model = new ConversationFilesModel(options);
    super({ id: `jsb-files-${conversation}`, model, translator });
    this.conversation = conversation;
    const texts = translator.load(TEXTS);
    this._texts = texts;
    this.addClass('jsb-Files');
    this.title.label = options.title;
    this.title.caption = texts.__('Files of this conversation; drop files here to upload them');
    this.toolbar.addItem(
      'top',
      new ToolbarButton({
        icon: homeIcon,
        tooltip: texts.__('All folders of this conversation'),
        onClick: () => void model.cd(`/${conversation}`)
      })
    );
    this.toolbar.addItem('upload', new Uploader({ model, translator }));
    this.toolbar.addItem(
      'notebook',
      new ToolbarButton({
        icon: notebookIcon,
        tooltip: texts.__('New notebook, with the kernel of this sandbox'),
        onClick: () => void this._newNotebook()
      })
    );
    this.toolbar.addItem(
      'refresh',
      new ToolbarButton({
        icon: refreshIcon,
        tooltip: texts.__('Refresh the file list'),
        onClick: () => void model.refresh()
      })
    );
    this.showFileSizeColumn = true;
    this.showLastModifiedColumn = false; // the tooltip has it; names need the room
    this.showFileCheckboxes = false;
  }

  /** Its id. */
  readonly conversation: string;

  /** Delete what is selected. JupyterLab may speak of a trash; here there is none. */
  override async delete(): Promise<void> {
    const items = [...this.selectedItems()];
    const [first] = items;
    if (first === undefined) {
      return;
    }
    const answer = await showDialog({
      title:
        items.length === 1
          ? this._texts.__('Delete “%1”?', first.name)
          : this._texts._n('Delete %1 file?', 'Delete %1 files?', items.length),
      body: this._texts.__('What is deleted here is gone for good.'),
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: this._texts.__('Delete') })],
      defaultButton: 0
    });
    if (!answer.button.accept) {
      return;
    }
    const { manager } = this.model;
    const done = await Promise.allSettled(items.map(item => manager.deleteFile(item.path)));
    for (const result of done) {
      if (result.status === 'rejected') {
        const reason: unknown = result.reason;
        const error = reason instanceof Error ? reason : String(reason);
        await showErrorMessage(this._texts.__('Not deleted'), error);
      }
    }
  }

  override dispose(): void {
    if (!this.isDisposed) {
      super.dispose();
      this.model.dispose();
    }
  }

  private async _newNotebook(): Promise<void> {
    const path = `${DRIVE_NAME}:${this.conversation}/${UPLOADS}`;
    const { manager } = this.model;
    try {
      const made = await manager.newUntitled({ type: 'notebook', path });
      manager.open(made.path);
    } catch (error) {
      const title = this._texts.__('No notebook was made');
      await showErrorMessage(title, error instanceof Error ? error : String(error));
    }
  }

  private readonly _texts: TranslationBundle;
}

export namespace ConversationFiles {
  export interface IOptions extends ConversationFilesModel.IOptions {
    title: string;
  }
}
