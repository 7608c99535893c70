// The server's REST API under `sandbox/api`. What arrives is checked here, so the rest of the
// extension works with known types only.

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { IConversation, IConversationPage } from './tokens';

/** A refusal of the server, in its own words. */
export class SandboxError extends Error {
  constructor(
    message: string,
    readonly status: number
  ) {
    super(message);
    this.name = 'SandboxError';
  }
}

/** Asks the server. */
export class SandboxApi {
  constructor(readonly serverSettings: ServerConnection.ISettings) {}

  /** List conversations, newest first. */
  async list(after: string | null = null): Promise<IConversationPage> {
    const query = after === null ? {} : { after };
    return toPage(await this._json(`conversations${URLExt.objectToQueryString(query)}`));
  }

  /** Make a conversation. Its sandbox is made by its first use. */
  async create(title: string): Promise<IConversation> {
    const body = JSON.stringify({ title });
    return toConversation(await this._json('conversations', { method: 'POST', body }));
  }

  /** Give a conversation another title. */
  async rename(id: string, title: string): Promise<IConversation> {
    const body = JSON.stringify({ title });
    return toConversation(await this._json(conversationPath(id), { method: 'PATCH', body }));
  }

  /** Delete a conversation with its sandbox and all files. */
  async remove(id: string): Promise<void> {
    await this._request(conversationPath(id), { method: 'DELETE' });
  }

  /** Upload a file as it is, without a copy in memory; it replaces one of the same name. */
  async upload(id: string, file: File): Promise<void> {
    const path = `${conversationPath(id)}/uploads/${encodeURIComponent(file.name)}`;
    await this._request(path, {
      method: 'PUT',
      body: file,
      headers: { 'Content-Type': 'application/octet-stream' }
    });
  }

  private async _json(path: string, init: RequestInit = {}): Promise<unknown> {
    const response = await this._request(path, init);
    return response.json();
  }

  private async _request(path: string, init: RequestInit): Promise<Response> {
    const settings = this.serverSettings;
    const url = URLExt.join(settings.baseUrl, 'sandbox/api', path);
    const response = await ServerConnection.makeRequest(url, init, settings);
    if (!response.ok) {
      throw await toError(response);
    }
    return response;
  }
}

/** Settings with which Jupyter's own clients talk to a conversation as to a server. */
export function conversationSettings(
  settings: ServerConnection.ISettings,
  id: string
): ServerConnection.ISettings {
  const path = `sandbox/c/${encodeURIComponent(id)}/`;
  return {
    ...settings,
    baseUrl: URLExt.join(settings.baseUrl, path),
    wsUrl: URLExt.join(settings.wsUrl, path)
  };
}

function conversationPath(id: string): string {
  return `conversations/${encodeURIComponent(id)}`;
}

async function toError(response: Response): Promise<SandboxError> {
  const { status } = response;
  try {
    const body: unknown = await response.json();
    if (isObject(body) && typeof body.message === 'string') {
      return new SandboxError(body.message, status);
    }
  } catch {
    // It is no JSON: of a proxy in between, for instance.
  }
  return new SandboxError(`The server answered ${status} ${response.statusText}`.trim(), status);
}

function toPage(value: unknown): IConversationPage {
  if (!isObject(value) || !Array.isArray(value.conversations)) {
    throw new TypeError('The server did not send a list of conversations.');
  }
  const { next } = value;
  return {
    conversations: value.conversations.map(toConversation),
    next: typeof next === 'string' ? next : null
  };
}

function toConversation(value: unknown): IConversation {
  if (
    !isObject(value) ||
    typeof value.id !== 'string' ||
    typeof value.title !== 'string' ||
    typeof value.state !== 'string' ||
    typeof value.created_at !== 'string' ||
    typeof value.used_at !== 'string'
  ) {
    throw new TypeError('The server did not send a conversation.');
  }
  const { id, title, state, created_at: createdAt, used_at: usedAt } = value;
  return { id, title, state, createdAt, usedAt };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
