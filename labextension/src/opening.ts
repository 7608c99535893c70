// How a file of a sandbox is shown. Whoever wrote it is not the user, so the rule is a list of what
// is safe in the user's own page: text in an editor, tables, trees, pixels, and notebooks (whose
// outputs are not trusted). All else is shown by the server's preview, in an origin of its own.

import { PathExt, URLExt } from '@jupyterlab/coreutils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import { areaOf, OUTPUTS, toPlace, UPLOADS } from './paths';

const EDITOR = 'Editor';
const SAFE = new Set([EDITOR, 'CSVTable', 'TSVTable', 'JSON', 'Image', 'Notebook']);
// Pictures that are programs, and what JupyterLab opens as a bare text or not at all.
const PREVIEWED = new Set(
  '.svg .md .markdown .pdf .mp4 .m4v .webm .ogv .mov .mp3 .m4a .wav .ogg .oga .flac'.split(' ')
);

/** Show with a widget factory of JupyterLab, or as a preview. */
export type Opening = { readonly factory: string } | { readonly previewUrl: string };

/**
 * Decide how a file is shown.
 *
 * @param path - With or without the drive's name.
 * @param wanted - The factory that was asked for; `default` for what suits the file.
 * @param baseUrl - Of the server.
 */
export function decideOpening(
  path: string,
  wanted: string,
  registry: DocumentRegistry,
  baseUrl: string
): Opening {
  const factory =
    wanted === 'default' ? (registry.defaultWidgetFactory(path)?.name ?? EDITOR) : wanted;
  const isPreviewed = PREVIEWED.has(PathExt.extname(path).toLowerCase());
  if (SAFE.has(factory) && (!isPreviewed || (wanted !== 'default' && factory === EDITOR))) {
    return { factory };
  }
  const previewUrl = previewUrlOf(path, baseUrl);
  return previewUrl === null ? { factory: EDITOR } : { previewUrl };
}

/** Give the URL of a file's preview; null where there is none (the workspace). */
export function previewUrlOf(path: string, baseUrl: string): string | null {
  const place = toPlace(path);
  const kinds: Readonly<Record<string, string>> = { [UPLOADS]: 'uploads', [OUTPUTS]: 'shares' };
  const kind = kinds[areaOf(place)];
  const [, ...rest] = place.path.split('/');
  if (kind === undefined || rest.length === 0) {
    return null;
  }
  const parts = [place.conversation, kind, ...rest].map(encodeURIComponent);
  return URLExt.join(baseUrl, 'sandbox/preview', ...parts);
}
