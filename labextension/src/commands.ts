// What the user can do with conversations: by the launcher, the palette, a menu, a button.

import { Dialog, InputDialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { deleteIcon, editIcon, refreshIcon } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { titleOf } from './conversations';
import type { Conversations } from './conversations';
import { sandboxIcon } from './icons';
import type { SandboxPanel } from './panel';
import { CommandIDs } from './tokens';

/** What the commands work with. */
export interface ICommandContext {
  commands: CommandRegistry;
  conversations: Conversations;
  /** Close what is open of a conversation that is gone. */
  forget: (id: string) => Promise<void>;
  panel: SandboxPanel;
  /** Give the id of the conversation that was right-clicked; '' if it was something else. */
  rightClicked: () => string;
  /** Bring the panel to the front. */
  showPanel: () => void;
  texts: TranslationBundle;
}

/** Add all commands. */
export function addCommands(context: ICommandContext): void {
  const { commands, conversations, panel, texts } = context;

  const show = (id: string): void => {
    context.showPanel();
    panel.choose(id);
  };

  /** Give the conversation that a command is about; undefined if there is none. */
  const subject = (args: ReadonlyPartialJSONObject): { id: string; title: string } | undefined => {
    const id = typeof args.conversation === 'string' ? args.conversation : context.rightClicked();
    const found = conversations.find(id);
    return found && { id, title: titleOf(found, texts.__('Conversation')) };
  };

  const tell = async (title: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      await showErrorMessage(title, error instanceof Error ? error : String(error));
    }
  };

  commands.addCommand(CommandIDs.create, {
    label: args =>
      args.isLauncher ? texts.__('New conversation') : texts.__('New Sandbox Conversation'),
    caption: texts.__('A private Linux machine for an assistant and you, with its own files'),
    icon: sandboxIcon,
    execute: () =>
      tell(texts.__('No conversation was made'), async () => {
        const answer = await InputDialog.getText({
          title: texts.__('New sandbox conversation'),
          label: texts.__('Title'),
          placeholder: texts.__('May be empty'),
          okLabel: texts.__('Create')
        });
        if (answer.button.accept) {
          show((await conversations.create((answer.value ?? '').trim())).id);
        }
      })
  });

  commands.addCommand(CommandIDs.show, {
    label: texts.__('Show the Files of a Sandbox Conversation'),
    execute: args => {
      if (typeof args.conversation === 'string') {
        show(args.conversation);
      }
    }
  });

  commands.addCommand(CommandIDs.rename, {
    label: texts.__('Rename Conversation…'),
    icon: editIcon,
    isVisible: args => subject(args) !== undefined,
    execute: args =>
      tell(texts.__('The conversation was not renamed'), async () => {
        const found = subject(args);
        if (found === undefined) {
          return;
        }
        const answer = await InputDialog.getText({
          title: texts.__('Rename conversation'),
          label: texts.__('Title'),
          text: conversations.find(found.id)?.title ?? '',
          okLabel: texts.__('Rename')
        });
        if (answer.button.accept) {
          await conversations.rename(found.id, (answer.value ?? '').trim());
        }
      })
  });

  commands.addCommand(CommandIDs.remove, {
    label: texts.__('Delete Conversation…'),
    icon: deleteIcon,
    isVisible: args => subject(args) !== undefined,
    execute: args =>
      tell(texts.__('The conversation was not deleted'), async () => {
        const found = subject(args);
        if (found === undefined) {
          return;
        }
        const answer = await showDialog({
          title: texts.__('Delete “%1”?', found.title),
          body: texts.__('Its sandbox, uploads and shared files are deleted for good.'),
          buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: texts.__('Delete') })],
          defaultButton: 0
        });
        if (answer.button.accept) {
          if (panel.current === found.id) {
            panel.choose('');
          }
          await context.forget(found.id);
          await conversations.remove(found.id);
        }
      })
  });

  commands.addCommand(CommandIDs.refresh, {
    label: texts.__('Refresh the List of Sandbox Conversations'),
    icon: refreshIcon,
    execute: () => conversations.refresh()
  });
}
