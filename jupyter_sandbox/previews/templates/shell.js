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
