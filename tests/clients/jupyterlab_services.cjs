// JupyterLab's own client of Jupyter servers, as npm gives it, on a conversation.
// Arguments: the conversation's base URL, the token.
const assert = require('node:assert');
const {
  ContentsManager, KernelManager, KernelSpecManager, ServerConnection, SessionManager
} = require('@jupyterlab/services');

const [baseUrl, token] = process.argv.slice(2);
const serverSettings = ServerConnection.makeSettings({ baseUrl, token });

/** Run a cell; give its reply and its outputs. */
async function run(kernel, code, meanwhile) {
  const future = kernel.requestExecute({ code });
  const outputs = [];
  future.onIOPub = message => {
    if (!['status', 'execute_input'].includes(message.header.msg_type)) {
      outputs.push(message.content);
    }
    if (meanwhile) {
      meanwhile(message);
    }
  };
  const reply = await future.done;
  return { reply: reply.content, outputs };
}

async function main() {
  const specs = new KernelSpecManager({ serverSettings });
  await specs.ready;
  assert.equal(specs.specs.default, 'sandbox-python');

  const kernelManager = new KernelManager({ serverSettings });
  const sessionManager = new SessionManager({ serverSettings, kernelManager });
  await sessionManager.ready;
  assert.deepEqual([...sessionManager.running()], []);
  const session = await sessionManager.startNew({
    path: 'workspace/a.ipynb', name: 'a', type: 'notebook', kernel: { name: 'sandbox-python' }
  });
  const kernel = session.kernel;
  const info = await kernel.info;
  assert.equal(info.language_info.name, 'python');

  const { reply, outputs } = await run(kernel, 'a = 41\nprint("hello")\na + 1');
  assert.equal(reply.status, 'ok');
  assert.deepEqual(outputs[0], { name: 'stdout', text: 'hello\n' });
  assert.deepEqual(outputs[1].data, { 'text/plain': '42' });

  let interrupting;
  const stopped = await run(
    kernel,
    'import time; print("go", flush=True); time.sleep(600)',
    message => {
      if (message.content.text === 'go\n') {
        interrupting = kernel.interrupt();
      }
    }
  );
  await interrupting;
  assert.equal(stopped.reply.ename, 'KeyboardInterrupt');

  await kernel.restart();
  const after = await run(kernel, 'print("a" in globals())');
  assert.equal(after.outputs[0].text, 'False\n');

  await sessionManager.refreshRunning();
  assert.deepEqual([...sessionManager.running()].map(model => model.path), ['workspace/a.ipynb']);
  await kernelManager.refreshRunning();
  assert.deepEqual([...kernelManager.running()].map(model => model.id), [kernel.id]);
  await session.setPath('workspace/b.ipynb');

  const contents = new ContentsManager({ serverSettings });
  const names = async path => (await contents.get(path)).content.map(each => each.name).sort();
  assert.deepEqual(await names(''), ['outputs', 'uploads']);
  const saved = await contents.save('uploads/notes.txt', {
    type: 'file', format: 'text', content: 'from Node\n'
  });
  assert.equal(saved.path, 'uploads/notes.txt');
  assert.deepEqual(await names('uploads'), ['notes.txt']);
  assert.equal((await contents.get('uploads/notes.txt')).content, 'from Node\n');
  const seen = await run(kernel, 'print(open("/mnt/user-data/uploads/notes.txt").read(), end="")');
  assert.equal(seen.outputs[0].text, 'from Node\n');
  await contents.delete('uploads/notes.txt');
  assert.deepEqual(await names('uploads'), []);

  await session.shutdown();
  console.log('all done');
}

main().then(() => process.exit(0), error => { console.error(error); process.exit(1); });
