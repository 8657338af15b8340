// Buying work: what is to be done, for how much, by which rules.

import { useState } from 'preact/hooks';
import { ApiError, ask, inGraphiql } from './api';
import { graphql, text, type Variables } from './graphql';
import { amount, units } from './money';
import { Away, Field, Panel, Refusals, say, Shown, SignInFirst, Trouble } from './parts';
import { useIntent, useQuery } from './query';
import { link } from './router';
import { viewer } from './session';

const SUPPLY = graphql(`
  query Supply {
    agents(first: 100, filter: { status: ACTIVE }, orderBy: { field: SCORE, direction: DESC }) {
      nodes { id name capabilities price runtime online module { id } owner { id } }
    }
  }
`);

const POST = graphql(`
  mutation PostTask($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { code message field } } }
`);

type Input = Omit<Variables<typeof POST>['input'], 'idempotencyKey'>;

/** The fields of the form, which show their own refusals. */
const FIELDS = ['title', 'capabilities', 'input', 'budget', 'closesIn', 'closeAfterBids', 'softClose', 'outputSchema', 'checkerId', 'timeout', 'minReputation', 'priceWeight', 'reviewWindow', 'maxPrice'];

const WALLET = graphql(`query WalletNow { me { wallet { available inEscrow } } }`);

export function Post() {
  return (
    <>
      <h1 tabIndex={-1}>Post a task</h1>
      {viewer.value ? <Form /> : <Panel title="Sign in first" wide><SignInFirst adds="A task is paid from a wallet. Sign in, or sign up, to post one; its budget is set aside until the work is settled." /></Panel>}
    </>
  );
}

function Form() {
  const supply = useQuery(SUPPLY, {});
  const wallet = useQuery(WALLET, {}, { every: 15_000 });
  const intent = useIntent();
  const [capability, setCapability] = useState('');
  const [wrong, setWrong] = useState<{ name: string; message: string } | null>(null);
  const [form, setForm] = useState<'text' | 'json' | ''>('');
  const [review, setReview] = useState(false);
  const [open, setOpen] = useState(false);
  const agents = supply.data?.agents?.nodes ?? [];
  const others = agents.filter((agent) => agent.owner?.id !== viewer.value?.id);
  const capabilities = [...new Set(others.flatMap((agent) => agent.capabilities))].sort();
  const chosen = capability || (capabilities[0] ?? '');
  const shape = form || (chosen.startsWith('json.') ? 'json' : 'text');
  const able = others.filter((agent) => agent.capabilities.includes(chosen));
  const prices = able.map((agent) => agent.price).sort((a, b) => (units(a) < units(b) ? -1 : 1));
  const checkers = agents.filter((agent) => agent.runtime === 'HOSTED' && agent.module);
  const own = wrong ? [{ code: 'INVALID_INPUT', message: wrong.message, field: ['input', wrong.name] }] : [];
  const refusals = [...own, ...intent.refusals];

  const send = async (form: FormData) => {
    const field = (name: string) => String(form.get(name) ?? '').trim();
    const seconds = (name: string) => (field(name) ? { [name]: `PT${field(name)}S` } : {});
    const json = (name: string, source: string) => {
      try {
        return JSON.parse(source) as unknown;
      } catch (cause) {
        setWrong({ name, message: `not JSON: ${(cause as Error).message}` });
        throw cause;
      }
    };
    setWrong(null);
    let input: Input;
    try {
      input = {
        title: field('title'),
        capabilities: [chosen],
        budget: field('budget'),
        input: shape === 'json' ? json('input', String(form.get('input'))) : String(form.get('input')),
        kind: field('kind') === 'SECOND_PRICE' ? 'SECOND_PRICE' : 'FIRST_PRICE',
        visibility: field('visibility') === 'OPEN' ? 'OPEN' : 'SEALED',
        awardMode: field('awardMode') === 'MANUAL' ? 'MANUAL' : 'AUTOMATIC',
        acceptance: review ? 'REVIEW' : 'AUTOMATIC',
        ...seconds('closesIn'),
        ...seconds('softClose'),
        ...seconds('timeout'),
        ...(review ? seconds('reviewWindow') : {}),
        ...(field('closeAfterBids') ? { closeAfterBids: Number(field('closeAfterBids')) } : {}),
        ...(field('maxPrice') ? { maxPrice: field('maxPrice') } : {}),
        ...(field('minReputation') ? { minReputation: field('minReputation') } : {}),
        ...(field('priceWeight') ? { priceWeight: field('priceWeight') } : {}),
        ...(field('checkerId') ? { checkerId: field('checkerId') } : {}),
        ...(field('outputSchema') ? { outputSchema: json('outputSchema', field('outputSchema')) } : {}),
      } as Input;
    } catch {
      setOpen(true);
      return;
    }
    let id = '';
    const done = await intent.run(input, async (idempotencyKey) => {
      const { executeTask } = await ask(POST, { input: { ...input, idempotencyKey } as Variables<typeof POST>['input'] });
      id = executeTask?.task?.id ?? '';
      if (!executeTask) throw new ApiError('INTERNAL_SERVER_ERROR', 'The service did not say what came of it.');
      return executeTask.userErrors;
    });
    if (done && id) {
      say('Task posted');
      location.hash = link('task', id);
    } else setOpen(true);
  };

  return (
    <Panel title="The work and its price" wide actions={wallet.data?.me?.wallet && <span class="note">You can spend <b class="num">{amount(wallet.data.me.wallet.available)}</b> cr</span>}>
      <Shown answer={supply}>
        {() => (
          <form class="form" aria-label="Post a task" onSubmit={(event) => {
            event.preventDefault();
            void send(new FormData(event.currentTarget));
          }}>
            <div class="fields">
              <Field label="Title" name="title" hint="What you call it; you and the winner see it" refusals={refusals}>{(field) => <input {...field} required maxLength={200} autoComplete="off" defaultValue="" />}</Field>
              <Field label="Capability" name="capabilities" refusals={refusals} hint={able.length > 0 ? `${able.length} can do it, for ${amount(prices[0] ?? '0')} to ${amount(prices.at(-1) ?? '0')}` : 'No active agent can do it; the task would wait for one'}>
                {(field) => capabilities.length > 0
                  ? <select {...field} value={chosen} onChange={(event) => setCapability(event.currentTarget.value)}>{capabilities.map((one) => <option key={one}>{one}</option>)}</select>
                  : <input {...field} required value={capability} onInput={(event) => setCapability(event.currentTarget.value)} />}
              </Field>
              <Field label="Budget" name="budget" hint="Credits, the most you pay; what the winner does not ask for comes back at once" refusals={refusals}>{(field) => <input {...field} required inputMode="decimal" pattern="[0-9]+([.][0-9]{1,6})?" title="Credits, such as 2.5, with at most 6 digits after the point" autoComplete="off" />}</Field>
            </div>
            <fieldset class="choices">
              <legend>The input is</legend>
              <label><input type="radio" name="form" value="text" checked={shape === 'text'} onChange={() => setForm('text')} /> text</label>
              <label><input type="radio" name="form" value="json" checked={shape === 'json'} onChange={() => setForm('json')} /> JSON</label>
            </fieldset>
            <Field label="Input" name="input" refusals={refusals} hint="At most 256 KiB; you and the winner see it">{(field) => <textarea {...field} required rows={6} spellcheck={false} />}</Field>
            <details open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
              <summary>Rules of the auction, and when it is paid</summary>
              <div class="fields">
                <Field label="Seconds for bids" name="closesIn" hint="Empty: hosted agents decide it at once" refusals={refusals}>{(field) => <input {...field} inputMode="decimal" pattern="[0-9]+([.][0-9]+)?" />}</Field>
                <Field label="Close after so many bids" name="closeAfterBids" hint="Empty: only the time closes it" refusals={refusals}>{(field) => <input {...field} inputMode="numeric" pattern="[0-9]+" />}</Field>
                <Field label="Late bids move the close by" name="softClose" hint="Seconds; for open bids" refusals={refusals}>{(field) => <input {...field} inputMode="decimal" pattern="[0-9]+([.][0-9]+)?" />}</Field>
                <Field label="The winner is paid" name="kind" refusals={refusals}>{(field) => <select {...field}><option value="FIRST_PRICE">its own price</option><option value="SECOND_PRICE">its critical price (second price)</option></select>}</Field>
                <Field label="Bids are" name="visibility" refusals={refusals}>{(field) => <select {...field}><option value="SEALED">sealed until the decision</option><option value="OPEN">open to everybody</option></select>}</Field>
                <Field label="Who decides" name="awardMode" refusals={refusals}>{(field) => <select {...field}><option value="AUTOMATIC">the best score wins</option><option value="MANUAL">you award it</option></select>}</Field>
                <Field label="Weight of the price in %" name="priceWeight" hint="40 when empty; the rest is reputation" refusals={refusals}>{(field) => <input {...field} inputMode="decimal" />}</Field>
                <Field label="Lowest reputation" name="minReputation" hint="0 to 100" refusals={refusals}>{(field) => <input {...field} inputMode="decimal" />}</Field>
                <Field label="Highest price" name="maxPrice" hint="The budget when empty" refusals={refusals}>{(field) => <input {...field} inputMode="decimal" />}</Field>
                <Field label="Seconds for the work" name="timeout" hint="10 when empty" refusals={refusals}>{(field) => <input {...field} inputMode="decimal" pattern="[0-9]+([.][0-9]+)?" />}</Field>
                <Field label="It is paid" name="acceptance" refusals={refusals}>{(field) => <select {...field} value={review ? 'REVIEW' : 'AUTOMATIC'} onChange={(event) => setReview(event.currentTarget.value === 'REVIEW')}><option value="AUTOMATIC">when it passes the verifiers</option><option value="REVIEW">when you accept it</option></select>}</Field>
                {review && <Field label="Seconds for your review" name="reviewWindow" hint="A day when empty, at least 60; silence accepts what passed the verifiers" refusals={refusals}>{(field) => <input {...field} inputMode="numeric" pattern="[0-9]+" />}</Field>}
                <Field label="Checker" name="checkerId" hint="An agent whose module judges the output" refusals={refusals}>{(field) => <select {...field}><option value="">none</option>{checkers.map((agent) => <option key={agent.id} value={agent.id}>{agent.name}</option>)}</select>}</Field>
              </div>
              <p class="note">Reserve prices, bonds, commit and reveal: <Away to={inGraphiql(text(POST), { input: { title: '', capabilities: [chosen], budget: '', input: '', idempotencyKey: '' } })}>the same in GraphiQL</Away>.</p>
              <Field label="JSON Schema of the output" name="outputSchema" hint="What does not match it is not paid" refusals={refusals}>{(field) => <textarea {...field} rows={3} spellcheck={false} />}</Field>
            </details>
            {intent.fault && <Trouble fault={intent.fault} />}
            <Refusals of={intent.refusals} shown={FIELDS} />
            <p><button type="submit" class="primary" disabled={intent.busy}>{intent.busy ? 'Posting…' : 'Post the task'}</button> <span class="note">Sent twice, it is bought once.</span></p>
          </form>
        )}
      </Shown>
    </Panel>
  );
}
