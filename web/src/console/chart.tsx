// Lines over time, drawn as SVG: a few dozen points, in the colours of the page.

import { useEffect, useRef, useState } from 'preact/hooks';

export interface Line {
  label: string;
  /** The name of a colour of the design. */
  colour: string;
  values: readonly number[];
  fill?: boolean;
}

const LEFT = 38;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;
const SECOND = 1_000;
const STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000].map((step) => step * SECOND);

/** A step of 1, 2 or 5 and zeros that cuts a range into at most so many parts. */
function even(range: number, parts: number): number {
  const rough = Math.max(range / parts, 1e-6);
  const ten = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5].find((digit) => digit * ten >= rough) ?? 10) * ten;
}

const upTo = (low: number, high: number, step: number): number[] => {
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, at) => (first + at) * step);
};

function label(instant: number, step: number): string {
  const text = new Date(instant).toISOString();
  return step >= 86_400 * SECOND ? text.slice(5, 10) : step >= 60 * SECOND ? text.slice(11, 16) : text.slice(11, 19);
}

/** Lines over instants in milliseconds; `fromZero` makes heights comparable, without it small moves are seen. */
export function Lines({ title, times, lines, height = 150, fromZero = false }: {
  title: string; times: readonly number[]; lines: readonly Line[]; height?: number; fromZero?: boolean;
}) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(360);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const resized = new ResizeObserver(() => setWidth(Math.max(element.clientWidth, 200)));
    resized.observe(element);
    return () => resized.disconnect();
  }, []);

  const all = lines.flatMap((line) => line.values);
  const step = even(fromZero ? Math.max(...all, 0.5) : Math.max(...all) - Math.min(...all) || 1, 4);
  const low = fromZero ? 0 : Math.floor(Math.min(...all) / step) * step;
  const high = Math.max(Math.ceil(Math.max(...all) / step - 1e-9) * step, low + step);
  const [first = 0, last = 1] = [times[0], times.at(-1)];
  const x = (instant: number) => LEFT + ((width - LEFT - RIGHT) * (instant - first)) / Math.max(last - first, 1);
  const y = (value: number) => TOP + ((height - TOP - BOTTOM) * (high - value)) / (high - low);
  const apart = STEPS.find((one) => (last - first) / one <= Math.max(1, width / 95)) ?? last - first;
  const digits = Math.max(0, Math.min(4, -Math.floor(Math.log10(step) + 1e-9)));
  const path = (values: readonly number[]) => values.map((value, at) => `${at === 0 ? 'M' : 'L'}${x(times[at] ?? first).toFixed(1)} ${y(value).toFixed(1)}`).join('');

  return (
    <figure class="chart">
      <div ref={box}>
        <svg viewBox={`0 0 ${width} ${height}`} width={width} height={height} role="img" aria-label={title}>
          {upTo(low, high, step).map((tick) => (
            <g key={tick}><line class="grid" x1={LEFT} x2={width - RIGHT} y1={y(tick)} y2={y(tick)} /><text x={LEFT - 6} y={y(tick) + 4} text-anchor="end">{tick.toFixed(digits)}</text></g>
          ))}
          {upTo(first, last, apart).map((tick) => (
            <g key={tick}><line class="grid" x1={x(tick)} x2={x(tick)} y1={TOP} y2={height - BOTTOM} /><text x={Math.min(x(tick), width - 26)} y={height - 5} text-anchor="middle">{label(tick, apart)}</text></g>
          ))}
          {lines.map((line) => (
            <g key={line.label} style={{ color: `var(--${line.colour})` }}>
              {line.fill && <path class="area" style={{ fill: `var(--${line.colour}-tint)` }} d={`${path(line.values)}L${x(last)} ${y(low)}L${x(first)} ${y(low)}Z`} />}
              <path class="line" d={path(line.values)} />
              {times.map((instant, at) => <circle key={instant + at} cx={x(instant)} cy={y(line.values[at] ?? low)} r="6"><title>{`${new Date(instant).toISOString().slice(0, 19).replace('T', ' ')} UTC: ${line.values[at]} ${line.label}`}</title></circle>)}
            </g>
          ))}
        </svg>
      </div>
      <figcaption>{lines.map((line) => <span key={line.label}><i style={{ background: `var(--${line.colour})` }} />{line.label}</span>)}</figcaption>
    </figure>
  );
}
