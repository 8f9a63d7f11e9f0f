/** The charts that the README shows: plain SVG with its own colours for light and dark pages. */
import { type Contestant, labels, SATURATING_CONNECTIONS, swept } from './plan.ts';
import { inWords, type Report, type ReportEntry } from './report.ts';

interface Bar {
  readonly label: string;
  readonly value: number;
  readonly text: string;
  readonly isOurs: boolean;
}

interface Panel {
  readonly title: string;
  readonly bars: readonly Bar[];
}

const WIDTH = 860;
const MARGIN = 20;
const LABEL_WIDTH = 210;
const VALUE_WIDTH = 130;
const BAR_HEIGHT = 16;
const BAR_STEP = 22;
const BAR_WIDTH = WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH;

const style = `
    text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
    .page { fill: #ffffff; }
    .heading { font-size: 16px; font-weight: 600; }
    .title { font-weight: 600; }
    .note { font-size: 12px; fill: #59636e; }
    .ours { fill: #1a7f64; }
    .other { fill: #a8b1bb; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .page { fill: #0d1117; }
      .note { fill: #9198a1; }
      .ours { fill: #3fb68b; }
      .other { fill: #59636e; }
    }`;

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Every panel has a scale of its own: logins and introspections differ by two orders of magnitude. */
function barChart(heading: string, notes: readonly string[], panels: readonly Panel[]): string {
  const parts: string[] = [];
  const text = (x: number, y: number, content: string, attributes: string): void => {
    parts.push(`  <text x="${x}" y="${y}" ${attributes}>${escapeXml(content)}</text>`);
  };
  let y = MARGIN + 12;
  text(MARGIN, y, heading, 'class="heading"');
  for (const note of notes) {
    y += 20;
    text(MARGIN, y, note, 'class="note"');
  }
  for (const { title, bars } of panels) {
    y += 34;
    text(MARGIN, y, title, 'class="title"');
    y += 10;
    const most = Math.max(...bars.map(({ value }) => value));
    for (const { label, value, text: content, isOurs } of bars) {
      const width = Math.max(1, Math.round((value / most) * BAR_WIDTH));
      const left = MARGIN + LABEL_WIDTH;
      text(left - 10, y + 13, label, 'text-anchor="end"');
      parts.push(
        `  <rect x="${left}" y="${y}" width="${width}" height="${BAR_HEIGHT}" rx="2" class="${isOurs ? 'ours' : 'other'}"/>`,
      );
      text(left + width + 8, y + 13, content, '');
      y += BAR_STEP;
    }
  }
  const height = y + MARGIN;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escapeXml(heading)}">`,
    `  <style>${style}\n  </style>`,
    `  <rect class="page" width="${WIDTH}" height="${height}" rx="6"/>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

const isOurs = (contestant: Contestant): boolean => contestant.startsWith('heirloom');

const rounded = (value: number): string =>
  Number(value.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 1 });

const throughputBar = ({ contestant, label, median }: ReportEntry): Bar => ({
  label,
  value: median.perSecond,
  text: `${rounded(median.perSecond)}/s`,
  isOurs: isOurs(contestant),
});

const entriesOf = ({ rows }: Report, name: string): readonly ReportEntry[] =>
  rows.find((row) => row.name === name)?.entries ?? [];

const machineNote = ({ machine }: Report): string =>
  `One process each; it, PostgreSQL and the load generator share ${machine['cores']} cores (${machine['processor']}).`;

const versionNote = ({ versions, date }: Report): string =>
  `Node ${versions['node']}, PostgreSQL ${versions['postgresql']}, node-oidc-provider ${versions['oidc-provider']}, ` +
  `@node-oauth/oauth2-server ${versions['@node-oauth/oauth2-server']}; ${date.slice(0, 10)}.`;

const compared: readonly (readonly [name: string, title: string])[] = [
  ['introspect-active', 'Introspection of a live token, with client authentication'],
  ['introspect-unknown', 'Introspection of an unknown token'],
  ['introspect-revoked', 'Introspection of a revoked token'],
  ['refresh', 'Refresh, with rotation'],
  ['revoke', 'Revocation'],
  ['login', 'Login, argon2id'],
];

/** In words, what the bar's label has no room for. */
const staticNote = ({ rows }: Report): readonly string[] =>
  rows.some(({ entries }) =>
    entries.some(({ contestant }) => contestant === 'oidc-provider-static'),
  )
    ? [
        `${labels['oidc-provider-static']}: clients are in its configuration, accounts are not looked up.`,
      ]
    : [];

/** All servers on the same database size, requests per second. */
export const resultsChart = (report: Report): string =>
  barChart(
    `Requests per second, ${inWords(report.options.families)}, ${SATURATING_CONNECTIONS} connections`,
    [
      machineNote(report),
      versionNote(report),
      '@node-oauth/oauth2-server has no introspection: a route behind authenticate(), which asks for no client.',
      ...staticNote(report),
    ],
    compared.map(([name, title]) => ({
      title,
      bars: entriesOf(report, name)
        .filter(({ contestant }) => !/-small|-huge|-from-memory/.test(contestant))
        .map(throughputBar),
    })),
  );

const grown: readonly (readonly [name: string, title: string])[] = [
  ['introspect-active', 'Introspection of a live token, requests per second'],
  ['refresh-window', 'Refresh, requests per second'],
];

const connected: readonly (readonly [name: string, connections: string])[] = [
  ['introspect-16-connections', '16'],
  ['introspect-64-connections', '64'],
  ['introspect-active', String(SATURATING_CONNECTIONS)],
  ['introspect-1000-connections', '1,000'],
];

/** Heirloom on databases of several sizes; everybody over few and many connections, and the memory those take. */
export const growthChart = (report: Report): string =>
  barChart(
    'How cost grows',
    [machineNote(report), versionNote(report)],
    [
      ...grown.map(([name, title]) => ({
        title,
        bars: entriesOf(report, name)
          .filter(({ contestant }) => isOurs(contestant) && contestant !== 'heirloom-from-memory')
          .toSorted((one, other) => (one.families ?? 0) - (other.families ?? 0))
          .map((entry) => ({ ...throughputBar(entry), label: inWords(entry.families ?? 0) })),
      })),
      ...connected.map(([name, connections]) => ({
        title: `Introspection of a live token over ${connections} connections, requests per second`,
        bars: entriesOf(report, name)
          .filter(({ contestant }) => swept.includes(contestant))
          .map(throughputBar),
      })),
      {
        title: 'Peak memory of the server under 1,000 busy keep-alive connections',
        bars: entriesOf(report, 'introspect-1000-connections').map(
          ({ contestant, label, median: { peakMegabytes = 0 } }) => ({
            label,
            value: peakMegabytes,
            text: `${rounded(peakMegabytes)} MB`,
            isOurs: isOurs(contestant),
          }),
        ),
      },
    ],
  );
