// The services that a conversation's documents work with: the application's own, but the kernels are
// the conversation's. A file of a sandbox must never run on the server's kernels: whoever wrote it
// is not the user.

import { KernelManager, KernelSpecManager, SessionManager } from '@jupyterlab/services';
import type { ServiceManager } from '@jupyterlab/services';
import { conversationSettings } from './api';
import { PatientKernelClient } from './kernelclient';

/**
 * Give the services of a conversation.
 *
 * @param isUsed - Whether its kernels are of interest; if not, the server is not asked about them.
 */
export function conversationServices(
  base: ServiceManager.IManager,
  conversation: string,
  isUsed: () => boolean
): ServiceManager.IManager {
  const serverSettings = conversationSettings(base.serverSettings, conversation);
  const standby = (): true | 'when-hidden' => !isUsed() || 'when-hidden';
  const kernelAPIClient = new PatientKernelClient({ serverSettings });
  const kernels = new KernelManager({ serverSettings, standby, kernelAPIClient });
  const sessions = new SessionManager({ serverSettings, standby, kernelManager: kernels });
  const kernelspecs = new KernelSpecManager({ serverSettings, standby });
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
