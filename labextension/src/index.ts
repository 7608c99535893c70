// The plugin: builds the parts and joins them to the application. No logic.

import { ILayoutRestorer } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { IDocumentManager, IDocumentWidgetOpener } from '@jupyterlab/docmanager';
import { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { ITranslator } from '@jupyterlab/translation';
import { SandboxApi } from './api';
import { addCommands } from './commands';
import { Conversations } from './conversations';
import { SandboxDocuments } from './documents';
import { SandboxDrive } from './drive';
import { ConversationFiles } from './files';
import { ID_ATTRIBUTE } from './list';
import { PANEL_ID, SandboxPanel } from './panel';
import { CommandIDs, ISandboxDocuments, PLUGIN_ID, TEXTS } from './tokens';

export { CommandIDs, ISandboxDocuments } from './tokens';

const plugin: JupyterFrontEndPlugin<ISandboxDocuments> = {
  id: PLUGIN_ID,
  description: 'The files of sandbox conversations.',
  autoStart: true,
  provides: ISandboxDocuments,
  requires: [IDocumentManager, IDocumentWidgetOpener, IFileBrowserFactory, ITranslator],
  optional: [ICommandPalette, ILauncher, ILayoutRestorer],
  activate
};

export default plugin;

function activate(
  app: JupyterFrontEnd,
  main: IDocumentManager,
  opener: IDocumentWidgetOpener,
  browsers: IFileBrowserFactory,
  translator: ITranslator,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  restorer: ILayoutRestorer | null
): ISandboxDocuments {
  const { commands, serviceManager, shell } = app;
  const texts = translator.load(TEXTS);
  const api = new SandboxApi(serviceManager.serverSettings);
  const drive = new SandboxDrive(api);
  serviceManager.contents.addDrive(drive);

  const documents = new SandboxDocuments({
    main,
    opener,
    services: serviceManager,
    translator,
    show: widget => {
      if (!widget.isAttached) {
        shell.add(widget, 'main');
      }
      shell.activateById(widget.id);
    }
  });
  documents.guard();

  const conversations = new Conversations(api);
  const panel: SandboxPanel = new SandboxPanel({
    commands,
    conversations,
    translator,
    makeFiles: (conversation, title) => {
      const files = new ConversationFiles({
        conversation,
        title,
        documents: documents.of(conversation),
        drive,
        onLost: () => void conversations.refresh(),
        isSeen: () => panel.isVisible,
        translator
      });
      void browsers.tracker.add(files); // the commands of JupyterLab's file browser find it there
      return files;
    }
  });
  panel.currentChanged.connect((_, id) => {
    documents.current = id;
  });
  shell.add(panel, 'left', { rank: 110, type: 'Sandboxes' });
  restorer?.add(panel, PANEL_ID);

  addCommands({
    commands,
    conversations,
    panel,
    texts,
    forget: id => documents.forget(id),
    rightClicked: () =>
      app.contextMenuHitTest(node => ID_ATTRIBUTE in node.dataset)?.dataset[ID_ATTRIBUTE] ?? '',
    showPanel: () => shell.activateById(panel.id)
  });
  for (const command of [CommandIDs.rename, CommandIDs.remove]) {
    app.contextMenu.addItem({ command, selector: `.jsb-List-item[data-${ID_ATTRIBUTE}]` });
  }
  palette?.addItem({ command: CommandIDs.create, category: texts.__('Sandbox') });
  palette?.addItem({ command: CommandIDs.refresh, category: texts.__('Sandbox') });
  launcher?.add({
    command: CommandIDs.create,
    category: texts.__('Sandbox'),
    args: { isLauncher: true }
  });
  return documents;
}
