/** The pure life cycle of a family: every case and every boundary of `decideRefresh`. RFC 9700 §4.14.2. */
import t from 'tap';
import { digest, type PresentedRefreshToken } from '../../src/oauth/opaque-token.ts';
import {
  causeOfDeath,
  decideRefresh,
  type FamilyLineage,
  type FamilyRotation,
  isHeldBy,
  isPulseOverdue,
  type RefreshDecision,
  retryDeadline,
  type ServicePulse,
  type TokenFamily,
} from '../../src/oauth/token-family.ts';

const now = new Date('2030-01-01T12:00:00.000Z');
/** An instant so many seconds from now; a thousandth is the smallest step that the core can see. */
const at = (seconds: number): Date => new Date(now.getTime() + Math.round(seconds * 1000));
const MOMENT = 0.001;

const OWNER = 7;
const STRANGER = 8;
const lineage = Buffer.alloc(16, 1);
const secretOf = (generation: number): Buffer => Buffer.alloc(32, generation);

/** The refresh token of one generation; the third is the current one unless a test says otherwise. */
const presented = (generation: number, itsLineage = lineage): PresentedRefreshToken => ({
  kind: 'refresh_token',
  familyId: '01234567-89ab-cdef-0123-456789abcdef',
  lineage: itsLineage,
  lineageDigest: digest(itsLineage),
  secret: secretOf(generation),
  secretDigest: digest(secretOf(generation)),
});
const older = presented(1);
const previous = presented(2);
const current = presented(3);

const rotation: FamilyRotation = {
  previousDigest: previous.secretDigest,
  successorSalt: Buffer.alloc(32, 9),
  rotatedAt: at(-20),
  retryUntil: at(40),
};

const rotated: FamilyLineage = {
  lineageDigest: digest(lineage),
  generation: 2,
  currentDigest: current.secretDigest,
  rotation,
  place: '(0,1)',
};

const alive: TokenFamily = {
  familyId: current.familyId,
  clientKey: OWNER,
  clientId: 'C1',
  subject: undefined,
  scope: new Set(['read']),
  audience: [],
  lineage: rotated,
  startedAt: at(-1000),
  idleExpiresAt: at(1000),
  expiresAt: at(2000),
  revokedAt: undefined,
  sessionsValidAfter: undefined,
  isSuspended: false,
};

const steadyPulse: ServicePulse = { pulseAt: at(-1), lastOutage: undefined };
const pulseAfterOutage = (beganAt: Date, resumedAt: Date): ServicePulse => ({
  pulseAt: at(-1),
  lastOutage: { beganAt, resumedAt },
});

/** A family whose last rotation was so many seconds ago, with a window of so many seconds. */
const rotatedAgo = (seconds: number, windowSeconds: number): TokenFamily => ({
  ...alive,
  lineage: {
    ...rotated,
    rotation: { ...rotation, rotatedAt: at(-seconds), retryUntil: at(windowSeconds - seconds) },
  },
});

const decide = (
  family: TokenFamily | undefined,
  token: PresentedRefreshToken,
  { clientKey = OWNER, pulse = steadyPulse } = {},
): RefreshDecision => decideRefresh(family, token, clientKey, pulse, now);

const unrotated: TokenFamily = {
  ...alive,
  lineage: { ...rotated, generation: 0, rotation: undefined },
};

const deaths: readonly (readonly [string, Partial<TokenFamily>, string])[] = [
  ['revoked', { revokedAt: at(-5) }, 'family is revoked'],
  ['revoked at this very instant', { revokedAt: now }, 'family is revoked'],
  ['expired', { expiresAt: at(-5) }, 'family has expired'],
  ['expiring at this very instant', { expiresAt: now }, 'family has expired'],
  ['older than a cut-off', { sessionsValidAfter: at(-999) }, 'family began before a cut-off'],
  [
    'begun at the instant of a cut-off',
    { sessionsValidAfter: alive.startedAt },
    'family began before a cut-off',
  ],
  ['suspended', { isSuspended: true }, 'client or resource owner is disabled'],
];

const survivals: readonly (readonly [string, Partial<TokenFamily>])[] = [
  ['untouched', {}],
  ['expiring in a moment', { expiresAt: at(MOMENT) }],
  ['begun a moment after the cut-off', { sessionsValidAfter: at(-1000 - MOMENT) }],
  ['past its idle expiry, which ends refresh tokens only', { idleExpiresAt: at(-5) }],
  ['without refresh tokens', { lineage: undefined }],
];

t.test('causeOfDeath names what ended a family, and nothing while it is alive', async (t) => {
  for (const [name, change, cause] of deaths) {
    t.equal(causeOfDeath({ ...alive, ...change }, now), cause, name);
  }
  for (const [name, change] of survivals) {
    t.equal(causeOfDeath({ ...alive, ...change }, now), undefined, name);
  }
});

t.test(
  'decideRefresh refuses whoever cannot prove to have held a token of the family',
  async (t) => {
    const otherLineage = Buffer.alloc(16, 2);
    const refused = (detail: string) => ({ kind: 'refuse', detail });
    t.strictSame(decide(undefined, current), refused('no such family'), 'unknown family');
    t.strictSame(
      decide({ ...alive, lineage: undefined }, current),
      refused('no such family'),
      'a family whose grant gives no refresh token',
    );
    for (const [name, generation] of [
      ['current', 3],
      ['previous', 2],
      ['older', 1],
    ] as const) {
      const forged = presented(generation, otherLineage);
      t.strictSame(decide(alive, forged), refused('wrong lineage'), `${name} secret`);
      t.strictSame(
        decide(alive, forged, { clientKey: STRANGER }),
        refused('wrong lineage'),
        `${name} secret, shown by another client`,
      );
    }
  },
);

t.test("decideRefresh changes nothing for another client's token, dead or alive", async (t) => {
  const dead = deaths.map(([name, change]) => [name, { ...alive, ...change }] as const);
  for (const [name, family] of [['alive', alive], ...dead] as const) {
    for (const token of [current, previous, older]) {
      t.strictSame(
        decide(family, token, { clientKey: STRANGER }),
        { kind: 'another-clients' },
        name,
      );
    }
  }
});

t.test(
  'decideRefresh refuses every token of a dead family, with no replay to record',
  async (t) => {
    for (const [name, change, detail] of deaths) {
      for (const token of [current, previous, older]) {
        t.strictSame(decide({ ...alive, ...change }, token), { kind: 'refuse', detail }, name);
      }
    }
    for (const [name, change] of survivals.slice(0, 3)) {
      t.equal(decide({ ...alive, ...change }, current).kind, 'rotate', name);
    }
  },
);

t.test('decideRefresh rotates the current token until it was idle for too long', async (t) => {
  const idle = { kind: 'refuse', detail: 'refresh token was idle for too long' };
  const family = (idleExpiresAt: Date) => ({ ...alive, idleExpiresAt });
  t.strictSame(decide(alive, current), {
    kind: 'rotate',
    family: alive,
    lineage: rotated,
  });
  t.equal(decide(unrotated, current).kind, 'rotate', 'the first one of a family');
  t.equal(decide(family(at(MOMENT)), current).kind, 'rotate', 'a moment before');
  t.strictSame(decide(family(now), current), idle, 'at this very instant');
  t.strictSame(decide(family(at(-5)), current), idle, 'after');
});

t.test('decideRefresh answers the previous token again inside its window only', async (t) => {
  t.strictSame(decide(alive, previous), { kind: 'retry', family: alive, rotation });
  const table: readonly (readonly [string, TokenFamily, RefreshDecision['kind']])[] = [
    ['at the rotation', rotatedAgo(0, 60), 'retry'],
    ['a moment before the end of the window', rotatedAgo(60 - MOMENT, 60), 'retry'],
    ['at the very end of the window', rotatedAgo(60, 60), 'replay'],
    ['after the window', rotatedAgo(61, 60), 'replay'],
    ['with no window', rotatedAgo(0, 0), 'replay'],
    ['with no window, by a clock that stepped back', rotatedAgo(-5, 0), 'replay'],
    ['a moment before the idle expiry', { ...alive, idleExpiresAt: at(MOMENT) }, 'retry'],
    ['at the idle expiry', { ...alive, idleExpiresAt: now }, 'replay'],
    ['after the idle expiry', { ...alive, idleExpiresAt: at(-5) }, 'replay'],
  ];
  for (const [name, family, kind] of table) t.equal(decide(family, previous).kind, kind, name);
});

t.test('decideRefresh takes everything else of the lineage for a replay', async (t) => {
  t.strictSame(decide(alive, older), { kind: 'replay' }, 'older generation, window open');
  t.strictSame(decide(rotatedAgo(100, 60), older), { kind: 'replay' }, 'window closed');
  t.strictSame(decide(rotatedAgo(0, 300), older), { kind: 'replay' }, 'the longest window');
  t.strictSame(decide(unrotated, older), { kind: 'replay' }, 'before any rotation');
  t.strictSame(
    decide({ ...alive, idleExpiresAt: at(-5) }, older),
    { kind: 'replay' },
    'after the idle expiry',
  );
});

t.test('decideRefresh counts service time: an outage starts an open window again', async (t) => {
  const table: readonly (readonly [string, TokenFamily, ServicePulse, RefreshDecision['kind']])[] =
    [
      [
        'an outage inside the window, and time enough since',
        rotatedAgo(100, 60),
        pulseAfterOutage(at(-90), at(-59)),
        'retry',
      ],
      [
        'an outage inside the window, and the whole window since',
        rotatedAgo(100, 60),
        pulseAfterOutage(at(-90), at(-60)),
        'replay',
      ],
      [
        'an outage that began after the window had closed',
        rotatedAgo(100, 60),
        pulseAfterOutage(at(-40), at(-1)),
        'replay',
      ],
      [
        'an outage that was over before the rotation',
        rotatedAgo(100, 60),
        pulseAfterOutage(at(-200), at(-100)),
        'replay',
      ],
      [
        'a rotation between the last pulse and the crash',
        rotatedAgo(100, 60),
        pulseAfterOutage(at(-103), at(-10)),
        'retry',
      ],
      ['no window', rotatedAgo(100, 0), pulseAfterOutage(at(-103), at(-10)), 'replay'],
    ];
  for (const [name, family, pulse, kind] of table) {
    t.equal(decide(family, previous, { pulse }).kind, kind, name);
    t.equal(decide(family, older, { pulse }).kind, 'replay', `${name}, older generation`);
  }
});

t.test('retryDeadline is the end of the window, or a whole window after the outage', async (t) => {
  // A rotation at -100 with a window of 60 s, which would close at -40.
  const window = { ...rotation, rotatedAt: at(-100), retryUntil: at(-40) };
  const table: readonly (readonly [string, ServicePulse, Date])[] = [
    ['no outage', steadyPulse, at(-40)],
    ['outage inside the window', pulseAfterOutage(at(-90), at(-70)), at(-10)],
    ['outage from inside the window to after it', pulseAfterOutage(at(-41), at(-20)), at(40)],
    ['outage that began a moment before the end', pulseAfterOutage(at(-40 - MOMENT), now), at(60)],
    ['outage that began at the very end', pulseAfterOutage(at(-40), now), at(-40)],
    ['outage after the window', pulseAfterOutage(at(-30), now), at(-40)],
    ['outage over at the very rotation', pulseAfterOutage(at(-130), at(-100)), at(-40)],
    [
      'outage over a moment after the rotation',
      pulseAfterOutage(at(-130), at(-100 + MOMENT)),
      at(-40 + MOMENT),
    ],
    ['outage before the rotation', pulseAfterOutage(at(-200), at(-150)), at(-40)],
    ['rotation after the last pulse', pulseAfterOutage(at(-104), at(-80)), at(-20)],
    // Two outages close together are recorded as one, from the first beginning to the last end.
    ['two outages, the rotation before both', pulseAfterOutage(at(-90), at(-5)), at(55)],
    ['two outages, the rotation between them', pulseAfterOutage(at(-250), at(-5)), at(55)],
  ];
  for (const [name, pulse, deadline] of table) {
    t.strictSame(retryDeadline(window, pulse), deadline, name);
  }
  const strict = { ...window, retryUntil: window.rotatedAt };
  t.strictSame(
    retryDeadline(strict, pulseAfterOutage(at(-90), now)),
    strict.rotatedAt,
    'a window of nothing is not made longer by an outage after it',
  );
});

t.test(
  'isHeldBy knows whoever shows a token of a family of its own, and nobody else',
  async (t) => {
    for (const token of [current, previous, older]) t.equal(isHeldBy(alive, token, OWNER), true);
    t.equal(isHeldBy(alive, current, STRANGER), false, 'another client');
    t.equal(isHeldBy(alive, presented(3, Buffer.alloc(16, 2)), OWNER), false, 'another lineage');
    t.equal(isHeldBy({ ...alive, lineage: undefined }, current, OWNER), false, 'no lineage');
    t.equal(isHeldBy(undefined, current, OWNER), false, 'no family');
  },
);

t.test('isPulseOverdue waits for more than three pulses', async (t) => {
  const since = (seconds: number): ServicePulse => ({ ...steadyPulse, pulseAt: at(-seconds) });
  t.equal(isPulseOverdue(since(0), now), false);
  t.equal(isPulseOverdue(since(15), now), false, 'exactly 15 s');
  t.equal(isPulseOverdue(since(15 + MOMENT), now), true);
  t.equal(isPulseOverdue(since(-5), now), false, 'a pulse from a clock that is ahead');
});
