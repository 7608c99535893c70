// The list of conversations: one is chosen by a click or by the keyboard. It asks nobody anything;
// what was chosen it tells by a signal.

import { Time } from '@jupyterlab/coreutils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import type { ISignal } from '@lumino/signaling';
import { Widget } from '@lumino/widgets';
import { titleOf } from './conversations';
import type { Conversations } from './conversations';
import type { IConversation } from './tokens';

/** The attribute of an entry that has the conversation's id. */
export const ID_ATTRIBUTE = 'conversation';

/** Shows the conversations. */
export class ConversationList extends Widget {
  constructor(conversations: Conversations, texts: TranslationBundle) {
    super();
    this._conversations = conversations;
    this._texts = texts;
    this.addClass('jsb-List');
    this.title.label = texts.__('Conversations');
    conversations.changed.connect(() => this.update(), this);
  }

  /** A conversation was chosen: its id. */
  get chosen(): ISignal<this, string> {
    return this._chosen;
  }

  /** The id of the conversation that is marked; '' for none. */
  get current(): string {
    return this._current;
  }
  set current(id: string) {
    this._current = id;
    this.update();
  }

  protected override onBeforeShow(message: Message): void {
    super.onBeforeShow(message);
    this.update();
  }

  protected override onUpdateRequest(): void {
    const { items, isKnown, problem, hasMore } = this._conversations;
    const focused = focusedId(this.node);
    const nodes: HTMLElement[] = [];
    if (problem !== '') {
      nodes.push(this._note(this._texts.__('The list could not be fetched: %1', problem)));
    } else if (isKnown && items.length === 0) {
      nodes.push(
        this._note(this._texts.__('No conversation yet. Make one with +, or let an assistant.'))
      );
    }
    nodes.push(...items.map(item => this._entry(item)));
    if (hasMore) {
      const more = button('jsb-List-more', this._texts.__('Older conversations'));
      more.onclick = () => void this._conversations.more();
      nodes.push(more);
    }
    this.node.replaceChildren(...nodes);
    nodes.find(node => node.dataset[ID_ATTRIBUTE] === focused)?.focus();
  }

  private _entry(item: IConversation): HTMLElement {
    const title = titleOf(item, this._texts.__('Conversation'));
    const entry = button('jsb-List-item', '');
    const name = document.createElement('span');
    name.className = 'jsb-List-title';
    name.textContent = title;
    const state = document.createElement('span');
    state.className = 'jsb-List-state';
    state.dataset.state = item.state;
    const when = document.createElement('span');
    when.className = 'jsb-List-when';
    when.textContent = Time.formatHuman(new Date(item.usedAt));
    entry.append(state, name, when);
    entry.title = this._texts.__(
      '%1\nSandbox: %2\nLast use: %3',
      title,
      item.state,
      Time.format(new Date(item.usedAt))
    );
    entry.dataset[ID_ATTRIBUTE] = item.id;
    entry.setAttribute('aria-current', String(item.id === this._current));
    entry.onclick = () => this._chosen.emit(item.id);
    return entry;
  }

  private _note(text: string): HTMLElement {
    const note = document.createElement('p');
    note.className = 'jsb-List-note';
    note.textContent = text;
    return note;
  }

  private readonly _conversations: Conversations;
  private readonly _texts: TranslationBundle;
  private readonly _chosen = new Signal<this, string>(this);
  private _current = '';
}

function button(className: string, text: string): HTMLButtonElement {
  const node = document.createElement('button');
  node.type = 'button';
  node.className = className;
  node.textContent = text;
  return node;
}

function focusedId(node: HTMLElement): string | undefined {
  const { activeElement } = document;
  return activeElement instanceof HTMLElement && node.contains(activeElement)
    ? activeElement.dataset[ID_ATTRIBUTE]
    : undefined;
}
