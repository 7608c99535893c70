// Shows the PDF that the shell hands over. Text can be selected and searched; nothing leads anywhere:
// no annotations, no forms, no scripts of the document, no links made of text, no network.
const { getDocument, AnnotationMode, GlobalWorkerOptions } = globalThis.pdfjsLib;
const { EventBus, FindState, PDFFindController, PDFLinkService, PDFViewer } = globalThis.pdfjsViewer;
const element = (id) => document.getElementById(id);
const text = (id) => element(id).textContent;

const ZOOM_STEP = 1.2;
const MOST_PIXELS = 2 ** 24; // of a page's canvas
const MOST_IMAGE_PIXELS = 64_000_000;

const worker = URL.createObjectURL(new Blob([text("worker")], { type: "text/javascript" }));
GlobalWorkerOptions.workerPort = new Worker(worker);

// The decoders of scanned pages are in this page, too.
const decoders = JSON.parse(text("decoders"));
class Decoders {
  async fetch({ filename }) {
    if (!(filename in decoders)) throw new Error(`there is no ${filename}`);
    return Uint8Array.from(atob(decoders[filename]), (c) => c.charCodeAt(0));
  }
}

const eventBus = new EventBus();
const linkService = new PDFLinkService({ eventBus });
linkService.externalLinkEnabled = false;
const findController = new PDFFindController({ eventBus, linkService });
const viewer = new PDFViewer({
  container: element("container"),
  viewer: element("viewer"),
  eventBus,
  linkService,
  findController,
  annotationMode: AnnotationMode.DISABLE,
  annotationEditorMode: -1,
  enableAutoLinking: false,
  maxCanvasPixels: MOST_PIXELS,
});
linkService.setViewer(viewer);

function say(message) {
  element("message").textContent = message;
  element("message").hidden = false;
  element("bar").hidden = true;
}

async function show(data) {
  try {
    const pdf = await getDocument({
      data,
      BinaryDataFactory: Decoders,
      wasmUrl: "decoders/",
      useWorkerFetch: false,
      disableWorkerRendering: true,
      enableXfa: false,
      isEvalSupported: false, // of versions that know it
      maxImageSize: MOST_IMAGE_PIXELS,
    }).promise;
    element("message").hidden = true;
    element("bar").hidden = false;
    viewer.setDocument(pdf);
    linkService.setDocument(pdf, null);
  } catch (error) {
    say(
      error.name === "PasswordException"
        ? "This PDF has a password. Download it to see it."
        : "This PDF cannot be shown. Download it instead.",
    );
  }
}

eventBus.on("pagesinit", () => {
  viewer.currentScaleValue = "page-width";
  if (viewer.currentScale > 1.5) viewer.currentScaleValue = "1.5";
  element("pages").textContent = `of ${viewer.pagesCount}`;
  turned();
});
eventBus.on("pagerendered", () => document.body.setAttribute("data-rendered", ""));
eventBus.on("pagechanging", turned);
eventBus.on("scalechanging", ({ scale, presetValue }) => {
  const known = [...element("scale").options].find((o) => o.value === (presetValue ?? String(scale)));
  element("other").textContent = `${Math.round(scale * 100)} %`;
  element("scale").value = known ? known.value : "other";
});

function turned() {
  element("page").value = viewer.currentPageNumber;
  element("previous").disabled = viewer.currentPageNumber <= 1;
  element("next").disabled = viewer.currentPageNumber >= viewer.pagesCount;
}

element("previous").onclick = () => viewer.previousPage();
element("next").onclick = () => viewer.nextPage();
element("page").onchange = () => {
  const wanted = Math.trunc(Number(element("page").value));
  if (wanted >= 1 && wanted <= viewer.pagesCount) viewer.currentPageNumber = wanted;
  turned();
};
element("page").onfocus = () => element("page").select();
element("smaller").onclick = () => zoom(1 / ZOOM_STEP);
element("larger").onclick = () => zoom(ZOOM_STEP);
element("scale").onchange = () => (viewer.currentScaleValue = element("scale").value);

function zoom(factor) {
  viewer.currentScale = Math.min(8, Math.max(0.1, viewer.currentScale * factor));
}

function find(type, findPrevious = false) {
  eventBus.dispatch("find", {
    type,
    query: element("find").value,
    caseSensitive: false,
    entireWord: false,
    highlightAll: true,
    findPrevious,
    matchDiacritics: false,
  });
  if (!element("find").value) element("matches").textContent = "";
}

element("find").oninput = () => find("");
element("find").onkeydown = (event) => event.key === "Enter" && find("again", event.shiftKey);
element("before").onclick = () => find("again", true);
element("after").onclick = () => find("again");
eventBus.on("updatefindmatchescount", ({ matchesCount }) => tell(matchesCount));
eventBus.on("updatefindcontrolstate", ({ state, matchesCount }) => {
  if (state === FindState.NOT_FOUND) element("matches").textContent = "not found";
  else if (state !== FindState.PENDING) tell(matchesCount);
});

function tell({ current, total }) {
  element("matches").textContent = total && element("find").value ? `${current} of ${total}` : "";
}

window.addEventListener("keydown", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  if (event.key === "f") {
    element("find").focus();
    element("find").select();
  } else if (event.key === "+" || event.key === "=") zoom(ZOOM_STEP);
  else if (event.key === "-") zoom(1 / ZOOM_STEP);
  else return;
  event.preventDefault();
});

window.addEventListener(
  "message",
  ({ source, data }) => {
    if (source !== parent) return;
    if (data.pdf instanceof ArrayBuffer) show(new Uint8Array(data.pdf));
    else say("The file could not be loaded. Reload the page, or download it.");
  },
  { once: true },
);
parent.postMessage("ready", "*");
