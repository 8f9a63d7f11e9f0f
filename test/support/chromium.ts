/** The real browser of the tests that need one. */
import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';
import type { Test } from 'tap';

const executablePath = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
].find((path) => existsSync(path));

/** Options of a test that has nothing to run in where no browser is installed. */
export const needsChromium = {
  skip: executablePath === undefined && 'no chromium is installed: apt-get install chromium',
};

/** No request but those of the page. */
const quietly = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts a browser that ends with the test. */
export async function launchChromium(t: Test): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: executablePath as string,
    args: quietly,
  });
  t.teardown(() => browser.close());
  return browser;
}
