// The services that a conversation's documents work with: the application's own, but no kernels.
// A file of a sandbox must never run on the server's kernels: whoever wrote it is not the user.

import { KernelManager, KernelSpecManager, SessionManager } from '@jupyterlab/services';
import type { ServiceManager } from '@jupyterlab/services';
import { conversationSettings } from './api';

/** Give the services of a conversation. */
export function conversationServices(
  base: ServiceManager.IManager,
  conversation: string
): ServiceManager.IManager {
  const serverSettings = conversationSettings(base.serverSettings, conversation);
  const kernels = new KernelManager.NoopManager({ serverSettings });
  const sessions = new SessionManager.NoopManager({ serverSettings, kernelManager: kernels });
  const kernelspecs = new KernelSpecManager({
    serverSettings,
    standby: () => true,
    kernelSpecAPIClient: {
      serverSettings,
      get: () => Promise.resolve({ default: '', kernelspecs: {} })
    }
  });
  const own = [sessions, kernels, kernelspecs];
  let isDisposed = false;
  return {
    serverSettings,
    kernels,
    sessions,
    kernelspecs,
    builder: base.builder,
    contents: base.contents,
    events: base.events,
    nbconvert: base.nbconvert,
    settings: base.settings,
    terminals: base.terminals,
    user: base.user,
    workspaces: base.workspaces,
    connectionFailure: base.connectionFailure,
    isReady: base.isReady,
    ready: base.ready,
    get isDisposed() {
      return isDisposed;
    },
    dispose() {
      isDisposed = true;
      own.forEach(manager => manager.dispose());
    }
  };
}
