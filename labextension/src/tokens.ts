// What the parts of this extension agree on: names, ids, shapes. It imports types only and does
// nothing when it is loaded, so any other extension may import it.

import { Token } from '@lumino/coreutils';
import type { IDocumentWidget } from '@jupyterlab/docregistry';

/** The id of this extension's plugin. */
export const PLUGIN_ID = 'jupyter-sandbox:files';

/** The domain of its texts, for translators. */
export const TEXTS = 'jupyter_sandbox';

/** The drive that holds the files of all conversations: `sandbox:CONVERSATION/uploads/a.csv`. */
export const DRIVE_NAME = 'sandbox';

/** All commands. */
export namespace CommandIDs {
  /** Make a conversation and show its files. */
  export const create = 'sandbox:create-conversation';
  /** Show the files of a conversation: `{ conversation: ID }`. */
  export const show = 'sandbox:show-conversation';
  /** Ask for a new title: `{ conversation?: ID }`, else the one that was right-clicked. */
  export const rename = 'sandbox:rename-conversation';
  /** Delete with all files, after a question: `{ conversation?: ID }`. */
  export const remove = 'sandbox:delete-conversation';
  /** Fetch the list again. */
  export const refresh = 'sandbox:refresh-conversations';
}

/** A conversation as the server lists it. */
export interface IConversation {
  readonly id: string;
  readonly title: string;
  readonly state: string;
  /** ISO 8601. */
  readonly createdAt: string;
  /** ISO 8601. */
  readonly usedAt: string;
}

/** A part of the list of conversations, newest first. */
export interface IConversationPage {
  readonly conversations: readonly IConversation[];
  /** Where the next page begins; null if this is the last. */
  readonly next: string | null;
}

/** Opens documents of conversations, for other extensions too. */
export interface ISandboxDocuments {
  /**
   * Open a file, or show the document if it is open.
   *
   * @param path - With the drive's name: `sandbox:CONVERSATION/outputs/report.md`.
   * @param widgetName - A widget factory of JupyterLab; absent: what suits the file.
   * @returns The document; undefined for what is shown as a preview.
   */
  open(path: string, widgetName?: string): IDocumentWidget | undefined;
}

export const ISandboxDocuments = new Token<ISandboxDocuments>(
  'jupyter-sandbox:ISandboxDocuments',
  'Opens files of sandbox conversations.'
);
