// The icon of sandboxes: a box with sand in it. JupyterLab's classes give it the theme's colours.

import { LabIcon } from '@jupyterlab/ui-components';

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M3 6h2v11h14V6h2v13H3z"/>
    <path d="M6 16c0-3 2-3 3-5s2-3 3-3 2 1 3 3 3 2 3 5z"/>
    <circle cx="12" cy="4.5" r="1.5"/>
  </g>
</svg>`;

/** The icon of sandboxes. */
export const sandboxIcon = new LabIcon({ name: 'jupyter-sandbox:sandbox', svgstr: SVG });
