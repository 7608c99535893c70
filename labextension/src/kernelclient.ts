// What JupyterLab asks about a kernel whose websocket was lost. JupyterLab asks once, waits ten to
// thirty seconds if the server is away, and takes any answer but three for the kernel's end. The
// rule: a kernel is not dead because its server is, so the question waits until the server answers.

import { KernelAPI, ServerConnection } from '@jupyterlab/services';
import type { Kernel } from '@jupyterlab/services';

const FIRST_MILLISECONDS = 500;
const LONGEST_MILLISECONDS = 5_000;
const PATIENCE_MILLISECONDS = 300_000; // then JupyterLab waits, and asks again while it cares

/** Asks a conversation's kernels API. */
export class PatientKernelClient extends KernelAPI.KernelAPIClient {
  /** Give a kernel's model, undefined if it is gone; waits for a server that is away. */
  override async getModel(id: string): Promise<Kernel.IModel | undefined> {
    const end = Date.now() + PATIENCE_MILLISECONDS;
    let wait = FIRST_MILLISECONDS;
    for (;;) {
      try {
        return await super.getModel(id);
      } catch (error) {
        if (!isPassing(error) || Date.now() >= end) {
          throw error;
        }
      }
      // Not all pages at the same moment: a server that has just started has enough to do.
      await new Promise(resolve => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(2 * wait, LONGEST_MILLISECONDS);
    }
  }
}

/** Whether an error says nothing about the kernel: the server is away, starting, or too busy. */
function isPassing(error: unknown): boolean {
  if (error instanceof ServerConnection.ResponseError) {
    const { status } = error.response;
    return status >= 500 || status === 424 || status === 429; // 424: JupyterHub's, as is 503
  }
  return error instanceof ServerConnection.NetworkError;
}
