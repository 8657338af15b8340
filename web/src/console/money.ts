// Credits and percentages arrive as exact decimal strings and stay exact: sums are made of whole millionths. A float is made of
// one only to find a place in a chart.

const SCALE = 1_000_000n;

/** The millionths in a decimal string of at most 6 fraction digits. */
export function units(text: string): bigint {
  const match = /^([-+]?)(\d+)(?:\.(\d{1,6}))?$/.exec(text);
  if (!match) throw new Error(`not an amount: ${text}`);
  const value = BigInt(match[2] ?? '0') * SCALE + BigInt((match[3] ?? '').padEnd(6, '0'));
  return match[1] === '-' ? -value : value;
}

/** A decimal string of millionths, as short as it can be. */
export function decimal(value: bigint): string {
  const size = value < 0n ? -value : value;
  const fraction = (size % SCALE).toString().padStart(6, '0').replace(/0+$/, '');
  return `${value < 0n ? '-' : ''}${size / SCALE}${fraction ? `.${fraction}` : ''}`;
}

/** An amount for people: thousands set apart, at least two fraction digits, no digit lost. */
export function amount(text: string): string {
  const [whole = '', fraction = ''] = text.replace(/^-/, '').split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, '\u202f');
  return `${text.startsWith('-') ? '−' : ''}${grouped}.${fraction.padEnd(2, '0')}`;
}

export const minus = (a: string, b: string): string => decimal(units(a) - units(b));
export const sum = (all: readonly string[]): string => decimal(all.reduce((total, one) => total + units(one), 0n));
export const isZero = (text: string): boolean => units(text) === 0n;

/** The score that a bid would have, in points of 0 to 100 with three digits, by the formula of the auctions. */
export function score(bid: { budget: string; price: string; reputation: string; priceWeight: string; reputationWeight: string }): string {
  const budget = units(bid.budget);
  if (budget <= 0n) return '0';
  const price = (units(bid.priceWeight) * (budget - units(bid.price))) / budget;
  const reputation = (units(bid.reputationWeight) * units(bid.reputation)) / (100n * SCALE);
  const thousandths = (price + reputation) / 1_000n;
  return decimal(thousandths * 1_000n);
}

/** Where something stands in a chart or a bar; never shown as a number. */
export const place = (text: string): number => Number(text);

/** A part of a whole in percent, for the length of a bar. */
export function share(part: string, whole: string): number {
  const all = units(whole);
  return all === 0n ? 0 : Number((units(part) * 10_000n) / all) / 100;
}

/** Milliseconds of an ISO 8601 duration of days, hours, minutes and seconds. */
export function milliseconds(duration: string): number {
  const match = /^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$/.exec(duration);
  if (!match) return Number.NaN;
  const [days, hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  return (((days ?? 0) * 24 + (hours ?? 0)) * 60 + (minutes ?? 0)) * 60_000 + (seconds ?? 0) * 1_000;
}

/** A span of time for people. */
export function span(ms: number): string {
  if (!Number.isFinite(ms)) return '–';
  if (ms < 1) return ms <= 0 ? '0 ms' : `${ms.toFixed(2)} ms`;
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1_000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}
