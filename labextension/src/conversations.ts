// The user's conversations as the panel shows them: fetched, kept up to date, changed. It knows no
// widget. The rule: after each change the list is the server's, never a guess.

import { Poll } from '@lumino/polling';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import type { IDisposable } from '@lumino/disposable';
import type { SandboxApi } from './api';
import type { IConversation } from './tokens';

const REFRESH_MILLISECONDS = 10_000;

/** The list of conversations, newest first. */
export class Conversations implements IDisposable {
  constructor(api: SandboxApi) {
    this._api = api;
    // An assistant makes conversations too, so the list is fetched again while it can be seen.
    this._poll = new Poll({
      name: 'jupyter-sandbox:conversations',
      factory: () => this._fetch(),
      frequency: { interval: REFRESH_MILLISECONDS, backoff: true, max: 300_000 },
      standby: () => !this.isVisible || 'when-hidden',
      auto: false
    });
  }

  /** Whether somebody looks; without it nothing is fetched but by `refresh`. */
  isVisible = false;

  /** The list, or its message, has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get items(): readonly IConversation[] {
    return this._items;
  }

  /** Why the list could not be fetched; '' if it could. */
  get problem(): string {
    return this._problem;
  }

  /** Whether the server has more than the list. */
  get hasMore(): boolean {
    return this._next !== null;
  }

  /** Whether the list has been fetched once. */
  get isKnown(): boolean {
    return this._isKnown;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  find(id: string): IConversation | undefined {
    return this._items.find(item => item.id === id);
  }

  /** Fetch the list now, and from time to time from then on. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
    await this._poll.tick;
  }

  /** Fetch the next page too. */
  async more(): Promise<void> {
    this._pages += 1;
    await this.refresh();
  }

  async create(title: string): Promise<IConversation> {
    const made = await this._api.create(title);
    await this.refresh();
    return made;
  }

  async rename(id: string, title: string): Promise<void> {
    await this._api.rename(id, title);
    await this.refresh();
  }

  async remove(id: string): Promise<void> {
    await this._api.remove(id);
    await this.refresh();
  }

  private async _fetch(): Promise<void> {
    const items: IConversation[] = [];
    let next: string | null = null;
    try {
      for (let page = 0; page < this._pages && (page === 0 || next !== null); page++) {
        const answer = await this._api.list(next);
        items.push(...answer.conversations);
        next = answer.next;
      }
    } catch (error) {
      this._problem = error instanceof Error ? error.message : String(error);
      this._changed.emit();
      throw error; // the poll asks less often then
    }
    this._items = items;
    this._next = next;
    this._problem = '';
    this._isKnown = true;
    this._changed.emit();
  }

  private readonly _api: SandboxApi;
  private readonly _poll: Poll;
  private readonly _changed = new Signal<this, void>(this);
  private _items: readonly IConversation[] = [];
  private _next: string | null = null;
  private _pages = 1;
  private _problem = '';
  private _isKnown = false;
}

/** Give what a conversation is called. */
export function titleOf(conversation: IConversation, untitled: string): string {
  return conversation.title.trim() || `${untitled} ${conversation.id.slice(0, 8)}`;
}
