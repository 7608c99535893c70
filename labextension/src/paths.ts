// Paths of the drive: `sandbox:CONVERSATION/FOLDER/…`; a local path is one without the drive's name.

import { DRIVE_NAME } from './tokens';

/** The folder that takes uploads. */
export const UPLOADS = 'uploads';
/** The folder of what the assistant has shared. */
export const OUTPUTS = 'outputs';

/** A file's place: whose it is, and its path there. */
export interface IPlace {
  readonly conversation: string;
  /** Without slashes at its ends; '' is the conversation itself. */
  readonly path: string;
}

/** Tell whether a path, with a drive's name or without one, is of our drive. */
export function isOurs(path: string): boolean {
  return path.startsWith(`${DRIVE_NAME}:`);
}

/** Take a path apart. */
export function toPlace(path: string): IPlace {
  const local = isOurs(path) ? path.slice(DRIVE_NAME.length + 1) : path;
  const [conversation = '', ...rest] = local.split('/').filter(part => part !== '');
  return { conversation, path: rest.join('/') };
}

/** Give the local path of a place. */
export function toLocalPath({ conversation, path }: IPlace): string {
  return path === '' ? conversation : `${conversation}/${path}`;
}

/** Give the first folder of a place: uploads, outputs, …; '' at the top. */
export function areaOf(place: IPlace): string {
  return place.path.split('/')[0] ?? '';
}
