// Keeps the frame's address alive while this page is looked at.
{
  const { renew, xsrf, seconds } = document.currentScript.dataset;
  const timer = setInterval(ask, seconds * 1000);
  async function ask() {
    const answer = await fetch(renew, { method: "POST", headers: { "X-XSRFToken": xsrf } }).catch(() => null);
    if (answer && answer.status < 500 && !answer.ok) clearInterval(timer);
  }
  document.addEventListener("visibilitychange", () => document.hidden || ask());
}

// Hands a PDF to its frame, which can load nothing: once, when it says that it is ready.
{
  const { pdf } = document.currentScript.dataset;
  if (pdf) window.addEventListener("message", hand);
  async function hand({ source }) {
    if (source !== document.querySelector("iframe").contentWindow) return;
    window.removeEventListener("message", hand);
    const answer = await fetch(pdf).catch(() => null);
    const data = answer && answer.ok ? await answer.arrayBuffer().catch(() => null) : null;
    source.postMessage({ pdf: data }, "*", data ? [data] : []); // its origin is opaque
  }
}
