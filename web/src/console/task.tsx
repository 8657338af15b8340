// Tasks of one's own, and one task: its steps, its money, and what its buyer can do about it.

import { useState } from 'preact/hooks';
import { ask, inGraphiql } from './api';
import { agentOf, detailOf, type MarketEvent, moneyOf, titleOf, toneOf, type Tone, words } from './events';
import { graphql, type Result } from './graphql';
import { HISTORY, useHistory } from './history';
import { amount, milliseconds, span } from './money';
import { Away, Badge, Choice, Credits, Empty, Field, Figure, Id, Json, Panel, Postings, Refusals, say, Shown, SignInFirst, Source, Split, Time, Trouble, usePages } from './parts';
import { useIntent, useQuery } from './query';
import { link, type Route } from './router';
import { type Refusal, viewer } from './session';

const LIST = graphql(`
  query Tasks($filter: TaskFilter, $after: String) {
    tasks(first: 30, after: $after, filter: $filter, orderBy: { field: CREATED_AT, direction: DESC }) {
      pageInfo { endCursor hasNextPage }
      nodes { id title status capabilities budget price paid createdAt finishedAt agent { id name } delegation { id } }
    }
  }
`);

const STATUSES = ['OPEN', 'AWARDED', 'RUNNING', 'SUBMITTED', 'DISPUTED', 'COMPLETED', 'REFUNDED', 'EXPIRED', 'CANCELLED'] as const;

export function Tasks({ route }: { route: Route }) {
  const { after, pager } = usePages('tasks');
  const status = STATUSES.find((one) => one === route.search['status']);
  const side = route.search['side'] === 'WORKER' ? ('WORKER' as const) : ('REQUESTER' as const);
  const variables = { after, filter: { side, ...(status ? { status: [status] } : {}) } };
  const answer = useQuery(LIST, variables, { skip: !viewer.value, when: (event) => !after && event.__typename !== 'BidEvent', every: 15_000 });
  const choose = (change: Record<string, string>) => (location.hash = link('tasks', '', { status: status ?? '', side: side === 'WORKER' ? side : '', ...change }));
  return (
    <>
      <div class="title"><h1 tabIndex={-1}>Tasks</h1><a class="button" href={link('post')}>Post a task</a></div>
      <Panel title={side === 'WORKER' ? 'What your agents do' : 'What you bought'} wide actions={viewer.value && (
        <>
          <Choice label="Side" value={side} options={[['REQUESTER', 'bought'], ['WORKER', 'done by my agents']]} choose={(value) => choose({ side: value === 'WORKER' ? value : '' })} />
          <Choice label="Status" value={status ?? ''} options={[['', 'any'], ...STATUSES.map((one): [string, string] => [one, words(one)])]} choose={(value) => choose({ status: value })} />
          <Source document={LIST} variables={variables} of="Tasks" />
        </>
      )}>
        {!viewer.value
          ? <SignInFirst adds="Tasks are seen by who pays for them and who works on them. Sign in to post tasks, follow them, and accept or dispute what comes." />
          : (
            <Shown answer={answer}>
              {({ tasks }) => !tasks || tasks.nodes.length === 0
                ? <Empty command="zerostate task run --capability text.stats --input README.md --budget 2.5 --follow">No such task. <a href={link('post')}>Post one here</a>, or with:</Empty>
                : (
                  <>
                    <div class="scroll" tabIndex={0} role="group" aria-label="Tasks">
                      <table>
                        <thead><tr><th scope="col">Task</th><th scope="col">Status</th><th scope="col">Capability</th><th scope="col">Agent</th><th scope="col" class="right">Budget</th><th scope="col" class="right">Price</th><th scope="col" class="right">Paid</th><th scope="col">Posted</th><th scope="col">Ended</th></tr></thead>
                        <tbody>
                          {tasks.nodes.map((task) => (
                            <tr key={task.id}>
                              <td><Id of={task.id} label={task.title} />{task.delegation && <small class="under">of <Id of={task.delegation.id} /></small>}</td>
                              <td><Badge>{task.status}</Badge></td>
                              <td class="soft">{task.capabilities.join(', ')}</td>
                              <td>{task.agent ? <Id of={task.agent.id} label={task.agent.name} /> : <span class="none">–</span>}</td>
                              <td class="right"><Credits of={task.budget} /></td>
                              <td class="right"><Credits of={task.price} /></td>
                              <td class="right"><Credits of={task.paid} /></td>
                              <td><Time at={task.createdAt} /></td>
                              <td><Time at={task.finishedAt} /></td>
                            </tr>
                          ))}
                        </tbody>
                      </table>
                    </div>
                    {pager(tasks.pageInfo)}
                  </>
                )}
            </Shown>
          )}
      </Panel>
    </>
  );
}

const ONE = graphql(`
  query Task($id: ID!) {
    task(id: $id) {
      id title status acceptance capabilities input inputSha256 budget price charge paid verified failureCode failureMessage createdAt awardedAt
      startedAt submittedAt finishedAt reviewUntil deadlineAt maxAttempts
      requester { id displayName } agent { id name owner { id } reputationEvents(first: 50) { nodes { id cause scoreBefore scoreAfter createdAt task { id } } } }
      auction { id bidCount } channel { id } delegation { id } escrow { status held paid returned } receipt { id sha256 }
      rating { stars comment }
      result { outcome output logs fuel peakMemoryBytes duration faultCode faultMessage cost check { passed reason } createdAt }
      dispute { id status reason amount awarded opinion evidenceUntil rulingUntil evidence(first: 40) { nodes { id kind body createdAt submitter { id displayName } } } }
    }
  }
`);

const TRANSFERS = graphql(`
  query TaskTransfers($id: ID!) {
    transfers(first: 50, filter: { taskId: $id }) {
      nodes { id kind amount createdAt reference task { id }
        debit { id kind user { displayName } agent { id name } } credit { id kind user { displayName } agent { id name } } }
    }
  }
`);

type One = NonNullable<Result<typeof ONE>['task']>;

export function Task({ route }: { route: Route }) {
  const { id } = route;
  const answer = useQuery(ONE, { id }, { skip: !viewer.value, every: 20_000 });
  const transfers = useQuery(TRANSFERS, { id }, { skip: !viewer.value, every: 20_000 });
  const history = useHistory('task', id, () => {
    answer.reload();
    transfers.reload();
  });
  if (!viewer.value) {
    return (
      <>
        <h1 tabIndex={-1}>Task <span class="id">{id}</span></h1>
        <Panel title="Private" wide><SignInFirst adds="A task is seen by who pays for it and who works on it. Sign in as one of them and this link shows it." /></Panel>
      </>
    );
  }
  return (
    <>
      <h1 tabIndex={-1}>{answer.data?.task?.title ?? 'Task'} <span class="id">{id}</span></h1>
      <Shown answer={answer}>
        {({ task }) => !task
          ? <Empty command={`zerostate task show ${id}`}>There is no such task, or it is not yours to see. Ask as its owner:</Empty>
          : (
            <>
              <Money task={task} />
              <p class="facts">
                Asks for <strong>{task.capabilities.join(', ')}</strong>
                {task.requester && <> · bought by {task.requester.displayName}</>}
                {task.agent && <> · done by <Id of={task.agent.id} label={task.agent.name} /></>}
                {task.auction && <> · auction <Id of={task.auction.id} /></>}
                {task.channel && <> · channel <Id of={task.channel.id} /></>}
                {task.delegation && <> · part of delegation <Id of={task.delegation.id} /></>}
                {task.receipt && <> · <Away to={inGraphiql('query($id: ID!) { taskReceipt(taskId: $id) { sha256 signature publicKey bundle } }', { id })}>signed receipt</Away></>}
              </p>
              <Actions key={task.status} task={task} reload={answer.reload} />
              <Steps task={task} events={history.events} />
              {history.fault && <Trouble fault={history.fault} />}
              <div class="columns even">
                <Panel title="Every event" actions={<Source document={HISTORY.task} variables={{ id }} of="Every event" />}><Events task={task} events={history.events} /></Panel>
                <div>
                  <Panel title="Its money, as double entries" actions={<Source document={TRANSFERS} variables={{ id }} of="Its money" />}>
                    <Shown answer={transfers}>
                      {({ transfers }) => transfers && transfers.nodes.length > 0
                        ? (
                          <>
                            <Postings caption="Transfers of this task" of={[...transfers.nodes].reverse()} />
                            <p class="soft">The entries of your own accounts. Of {amount(task.budget)}, {amount(task.escrow.paid)} went to the agent, {amount(task.escrow.returned)} came back, {amount(task.escrow.held)} is held.</p>
                          </>
                        )
                        : <Empty command="zerostate agent earnings ID">No transfer of this task is yours to see.</Empty>}
                    </Shown>
                  </Panel>
                  <ResultOf task={task} />
                </div>
              </div>
            </>
          )}
      </Shown>
    </>
  );
}

function Money({ task }: { task: One }) {
  const query = (fields: string) => `query($id: ID!) { task(id: $id) { ${fields} } }`;
  const variables = { id: task.id };
  const { escrow } = task;
  return (
    <dl class="figures" aria-label="The task in figures">
      <Figure label="Status" value={<Badge>{task.status}</Badge>} query={query('status failureCode failureMessage verified')} variables={variables} note={task.failureMessage ?? (task.status === 'SUBMITTED' ? <>review until <Time at={task.reviewUntil} /></> : task.finishedAt ? <>ended <Time at={task.finishedAt} /></> : 'going on')} />
      <Figure label="Budget" value={<Credits of={task.budget} unit />} query={query('budget escrow { status held paid returned }')} variables={variables} note={<Split budget={task.budget} paid={escrow.paid} held={escrow.held} returned={escrow.returned} />} />
      <Figure label="Price" value={<Credits of={task.price} unit />} query={query('price charge winningBid { price score { total } }')} variables={variables} note={task.charge ? `${amount(task.charge)} as metered` : task.price ? 'by the auction' : 'not awarded'} />
      <Figure label="Held" value={<Credits of={escrow.held} unit />} query={query('escrow { status held }')} variables={variables} note={words(escrow.status)} />
      <Figure label="Paid" value={<Credits of={escrow.paid} unit />} query={query('escrow { paid } paid')} variables={variables} note={task.rating ? `rated ${task.rating.stars} of 5` : 'to the agent'} />
      <Figure label="Returned" value={<Credits of={escrow.returned} unit />} query={query('escrow { returned }')} variables={variables} note="to the buyer" />
    </dl>
  );
}

type State = 'done' | 'now' | 'failed' | 'ahead';
interface Step {
  name: string;
  state: State;
  at: string | null;
  note: string;
}

/** The nine steps of a task, from its events and what is known of it. */
function stepsOf(task: One, events: readonly MarketEvent[]): Step[] {
  const find = (...kinds: MarketEvent['kind'][]) => events.findLast((event) => kinds.includes(event.kind));
  const bids = events.filter((event) => event.kind === 'BID_SUBMITTED' || event.kind === 'BID_COMMITTED');
  const posted = find('TASK_POSTED');
  const opened = find('AUCTION_OPENED');
  const awarded = find('AUCTION_AWARDED', 'TASK_REASSIGNED');
  const escrow = find('CHANNEL_OPENED');
  const started = find('TASK_STARTED');
  const settled = find('TASK_COMPLETED', 'TASK_REFUNDED');
  const ended = find('TASK_EXPIRED', 'TASK_CANCELLED', 'AUCTION_EXPIRED', 'AUCTION_CANCELLED');
  const submitted = find('TASK_SUBMITTED');
  const moves = (task.agent?.reputationEvents?.nodes ?? []).filter((one) => one.task?.id === task.id);
  const reputation = moves.find((one) => one.cause !== 'RATING');
  const rated = moves.find((one) => one.cause === 'RATING');
  const resultAt = task.submittedAt ?? submitted?.occurredAt ?? task.result?.createdAt ?? null;
  const step = (name: string, at: string | null | undefined, note: string, failed = false): Step => ({ name, at: at ?? null, note, state: failed ? 'failed' : at ? 'done' : 'ahead' });
  const credits = (event: MarketEvent | undefined) => (event && moneyOf(event) ? amount(moneyOf(event)) : '');
  const steps = [
    step('Posted', posted?.occurredAt ?? task.createdAt, `${amount(task.budget)} set aside`),
    step('Auction', opened?.occurredAt, opened ? 'opened' : ''),
    step('Bids', bids.at(-1)?.occurredAt, `${task.auction?.bidCount ?? bids.length} so far`),
    step('Award', awarded?.occurredAt ?? ended?.occurredAt ?? task.awardedAt, ended ? words(ended.kind) : awarded ? `${task.agent?.name ?? 'an agent'} for ${amount(task.price ?? '0')}` : '', !!ended),
    step('Escrow', escrow?.occurredAt, credits(escrow)),
    step('Run', started?.occurredAt ?? task.startedAt, started ? detailOf(started) : ''),
    step('Result', resultAt, task.result ? `${words(task.result.outcome)} in ${span(milliseconds(task.result.duration))}` : '', task.result?.outcome === 'FAILED'),
    step('Settlement', settled?.occurredAt ?? (task.status === 'COMPLETED' || task.status === 'REFUNDED' ? task.finishedAt : null), task.status === 'DISPUTED' ? 'disputed' : settled ? (settled.kind === 'TASK_REFUNDED' ? 'refunded' : `${amount(task.escrow.paid)} paid`) : '', settled?.kind === 'TASK_REFUNDED'),
    step('Reputation', reputation?.createdAt, [reputation && `${reputation.scoreBefore} → ${reputation.scoreAfter}`, rated && `rated, ${rated.scoreAfter}`].filter(Boolean).join('; ')),
  ];
  const over = !!settled || !!ended;
  const next = steps.find((one) => one.state === 'ahead');
  if (next && !over) next.state = 'now';
  return steps;
}

const STATES: Record<State, string> = { done: 'done', now: 'under way', failed: 'failed', ahead: 'not yet' };

function Steps({ task, events }: { task: One; events: readonly MarketEvent[] }) {
  return (
    <Panel title="Timeline" wide actions={<Source document={ONE} variables={{ id: task.id }} of="Timeline" />}>
      <ol class="steps" aria-label="Timeline of the task">
        {stepsOf(task, events).map((step) => (
          <li key={step.name} class={step.state} aria-current={step.state === 'now' ? 'step' : undefined}>
            <span class="mark" aria-hidden="true" />
            <b>{step.name}</b>
            <span class="note">{step.at && <span class="sr">{STATES[step.state]} </span>}{step.at ? <Time at={step.at} /> : STATES[step.state]}</span>
            <span class="note">{step.note}</span>
          </li>
        ))}
      </ol>
    </Panel>
  );
}

/** Who made an event happen: its buyer, its agent, or else the market by its rules. */
function actorOf(task: One, event: MarketEvent): preact.ComponentChildren {
  const agent = agentOf(event);
  const byAgent = agent && <Id of={agent.id} label={agent.name} />;
  switch (event.kind) {
    case 'TASK_POSTED':
    case 'AUCTION_OPENED':
    case 'TASK_CANCELLED':
    case 'AUCTION_CANCELLED':
      return task.requester?.displayName;
    case 'DISPUTE_OPENED':
      return 'reason' in event && event.reason?.toUpperCase() === 'PAYER' ? task.requester?.displayName : byAgent;
    case 'EVIDENCE_SUBMITTED':
      return 'a party';
    case 'BID_SUBMITTED':
    case 'BID_WITHDRAWN':
    case 'BID_COMMITTED':
    case 'BID_REVEALED':
      return byAgent ?? 'a bidder';
    case 'TASK_STARTED':
    case 'TASK_SUBMITTED':
      return byAgent ?? 'the agent';
    default:
      return 'market';
  }
}

function Events({ task, events }: { task: One; events: readonly MarketEvent[] }) {
  if (events.length === 0) return <p class="loading" role="status">Loading…</p>;
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Events of the task">
      <table>
        <thead><tr><th scope="col" class="right">#</th><th scope="col">Time</th><th scope="col" class="right">After</th><th scope="col">Event</th><th scope="col">By</th><th scope="col">Detail</th><th scope="col" class="right">Credits</th></tr></thead>
        <tbody>
          {events.map((event, at) => {
            const before = events[at - 1];
            const agent = event.kind === 'AUCTION_AWARDED' || event.kind === 'TASK_REASSIGNED' ? agentOf(event) : null;
            return (
              <tr key={event.cursor} title={`cursor ${event.cursor}`}>
                <td class="right num">{at + 1}</td>
                <td><Time at={event.occurredAt} /></td>
                <td class="right num soft">{before ? span(Date.parse(event.occurredAt) - Date.parse(before.occurredAt)) : ''}</td>
                <td><Badge tone={toneOf(event)}>{titleOf(event)}</Badge></td>
                <td>{actorOf(task, event)}</td>
                <td class="soft">{agent && <>to <Id of={agent.id} label={agent.name} /> </>}{detailOf(event)}</td>
                <td class="right"><Credits of={moneyOf(event) || null} /></td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function ResultOf({ task }: { task: One }) {
  const { result } = task;
  return (
    <Panel title="Input and result" actions={<Source document={ONE} variables={{ id: task.id }} of="Input and result" />}>
      <h3>Input</h3>
      {task.input == null ? <p class="soft">Not yours to see. SHA-256 <span class="id">{task.inputSha256}</span></p> : <Json value={task.input} />}
      <h3>Output</h3>
      {!result
        ? <p class="soft">No result yet.</p>
        : (
          <>
            {result.outcome === 'SUCCEEDED' || result.output != null ? <Json value={result.output} /> : <p>{result.faultMessage ?? 'The work failed.'} {result.faultCode && <code>{result.faultCode}</code>}</p>}
            <p class="soft">
              {span(milliseconds(result.duration))} of work{result.fuel !== '0' && <> · <span class="num">{result.fuel.replace(/\B(?=(\d{3})+$)/g, '\u202f')}</span> fuel</>}
              {result.peakMemoryBytes !== '0' && <> · {Math.round(Number(result.peakMemoryBytes) / 1024)} KiB at most</>}
              {result.check && <> · checker: {result.check.passed ? 'passed' : `refused${result.check.reason ? `, ${result.check.reason}` : ''}`}</>}
              {task.verified === false && ' · does not pass the verifiers'}
            </p>
            {result.logs && <details><summary>Log of the agent</summary><Json value={result.logs} /></details>}
          </>
        )}
    </Panel>
  );
}

const CANCEL = graphql(`mutation CancelTask($input: CancelTaskInput!) { cancelTask(input: $input) { task { id } userErrors { code message field } } }`);
const ACCEPT = graphql(`mutation AcceptResult($input: AcceptResultInput!) { acceptResult(input: $input) { task { id } userErrors { code message field } } }`);
const REJECT = graphql(`mutation RejectResult($input: RejectResultInput!) { rejectResult(input: $input) { task { id } userErrors { code message field } } }`);
const DISPUTE = graphql(`mutation OpenDispute($input: OpenDisputeInput!) { openDispute(input: $input) { dispute { id } userErrors { code message field } } }`);
const RATE = graphql(`mutation Rate($input: RateAgentInput!) { rateAgent(input: $input) { rating { id } userErrors { code message field } } }`);
const EVIDENCE = graphql(`mutation ShowEvidence($input: SubmitEvidenceInput!) { submitEvidence(input: $input) { evidence { id } userErrors { code message field } } }`);
const RULE = graphql(`mutation Rule($input: ResolveDisputeInput!) { resolveDispute(input: $input) { dispute { id } userErrors { code message field } } }`);

type Act = (input: object, perform: (idempotencyKey: string) => Promise<readonly Refusal[] | undefined>) => Promise<boolean>;

/** What the viewer can do about the task in its state. */
function Actions({ task, reload }: { task: One; reload: () => void }) {
  const intent = useIntent();
  const buyer = viewer.value?.id === task.requester?.id;
  const worker = viewer.value?.id === task.agent?.owner?.id;
  const act: Act = async (input, perform) => {
    const done = await intent.run(input, perform);
    if (done) {
      say('Done');
      reload();
    }
    return done;
  };
  const taskId = task.id;
  const forms = [];
  if (task.status === 'OPEN' && buyer) {
    forms.push(
      <button key="cancel" type="button" disabled={intent.busy} onClick={() => void act({ cancel: taskId }, async (idempotencyKey) => (await ask(CANCEL, { input: { taskId, idempotencyKey } })).cancelTask?.userErrors)}>
        Cancel and take {amount(task.budget)} back
      </button>,
    );
  }
  if (task.status === 'SUBMITTED') {
    if (buyer) {
      forms.push(
        <button key="accept" type="button" class="primary" disabled={intent.busy} onClick={() => void act({ accept: taskId }, async (idempotencyKey) => (await ask(ACCEPT, { input: { taskId, idempotencyKey } })).acceptResult?.userErrors)}>
          Accept and pay {amount(task.charge ?? task.price ?? '0')}
        </button>,
      );
    }
    if (buyer || worker) {
      forms.push(
        <Say key="dispute" label={buyer ? 'Why you do not accept it' : 'Why you dispute it'} name="reason" button={buyer ? 'Reject and open a dispute' : 'Open a dispute'} busy={intent.busy} refusals={intent.refusals}
          send={(reason) => act({ reject: reason }, async (idempotencyKey) => buyer
            ? (await ask(REJECT, { input: { taskId, reason, idempotencyKey } })).rejectResult?.userErrors
            : (await ask(DISPUTE, { input: { taskId, reason, idempotencyKey } })).openDispute?.userErrors)} />,
      );
    }
  }
  if (task.status === 'COMPLETED' && buyer && !task.rating) forms.push(<Rate key="rate" task={task} busy={intent.busy} act={act} />);
  const { dispute } = task;
  if (forms.length === 0 && !dispute && !intent.fault && intent.refusals.length === 0) return null;
  return (
    <Panel title={dispute ? 'Dispute' : 'What you can do'} wide>
      {dispute && <Dispute task={task} dispute={dispute} party={buyer || worker} act={act} busy={intent.busy} refusals={intent.refusals} />}
      <div class="doing">{forms}</div>
      {intent.fault && <Trouble fault={intent.fault} />}
      <Refusals of={intent.refusals} shown={['reason', 'body', 'opinion', 'award']} />
    </Panel>
  );
}

/** A sentence to send along. */
function Say({ label, name, button, busy, refusals, send }: { label: string; name: string; button: string; busy: boolean; refusals: readonly Refusal[]; send: (text: string) => Promise<boolean> }) {
  return (
    <form class="inline" onSubmit={(event) => {
      event.preventDefault();
      const form = event.currentTarget;
      void send(String(new FormData(form).get(name))).then((done) => done && form.reset());
    }}>
      <Field label={label} name={name} refusals={refusals}>{(field) => <input {...field} required maxLength={2_000} autoComplete="off" />}</Field>
      <button type="submit" disabled={busy}>{button}</button>
    </form>
  );
}

function Rate({ task, busy, act }: { task: One; busy: boolean; act: Act }) {
  const [stars, setStars] = useState(0);
  return (
    <form class="inline" onSubmit={(event) => {
      event.preventDefault();
      const comment = String(new FormData(event.currentTarget).get('comment'));
      const input = { taskId: task.id, stars, ...(comment ? { comment } : {}) };
      void act(input, async (idempotencyKey) => (await ask(RATE, { input: { ...input, idempotencyKey } })).rateAgent?.userErrors);
    }}>
      <fieldset class="stars">
        <legend>Rate {task.agent?.name}; it counts once and stays</legend>
        {[1, 2, 3, 4, 5].map((one) => (
          <label key={one}><input type="radio" name="stars" value={one} checked={stars === one} onChange={() => setStars(one)} /> {one}</label>
        ))}
      </fieldset>
      <Field label="Comment" name="comment">{(field) => <input {...field} maxLength={1_000} autoComplete="off" />}</Field>
      <button type="submit" disabled={busy || stars === 0}>{stars ? `Rate ${stars} of 5` : 'Rate'}</button>
    </form>
  );
}

function Dispute({ task, dispute, party, act, busy, refusals }: {
  task: One; dispute: NonNullable<One['dispute']>; party: boolean; act: Act; busy: boolean; refusals: readonly Refusal[];
}) {
  const tone: Tone = dispute.status === 'RULED' ? 'good' : 'warn';
  const arbiter = viewer.value?.role === 'ARBITER' && !party;
  const open = dispute.status === 'EVIDENCE' || dispute.status === 'RULING';
  const disputeId = dispute.id;
  return (
    <>
      <p>
        <Badge tone={tone}>{dispute.status}</Badge> {amount(dispute.amount)} in dispute: “{dispute.reason}”.
        {dispute.status === 'EVIDENCE' && <> Evidence until <Time at={dispute.evidenceUntil} full />.</>}
        {open && <> A ruling by <Time at={dispute.rulingUntil} full />; without one the verifiers decide.</>}
        {dispute.awarded != null && <> {amount(dispute.awarded)} went to the agent.</>}
        {dispute.opinion && <> “{dispute.opinion}”</>}
      </p>
      {(dispute.evidence?.nodes ?? []).length > 0 && (
        <ul class="evidence" aria-label="Evidence">
          {dispute.evidence?.nodes.map((one) => <li key={one.id}><Time at={one.createdAt} /> {one.submitter?.displayName}, {words(one.kind)}: {one.body}</li>)}
        </ul>
      )}
      {party && dispute.status === 'EVIDENCE' && (
        <Say label="A statement for the arbiter" name="body" button="Show it" busy={busy} refusals={refusals}
          send={(body) => act({ evidence: body }, async (idempotencyKey) => (await ask(EVIDENCE, { input: { disputeId, kind: 'STATEMENT', body, idempotencyKey } })).submitEvidence?.userErrors)} />
      )}
      {arbiter && open && (
        <form class="inline" onSubmit={(event) => {
          event.preventDefault();
          const form = new FormData(event.currentTarget);
          const input = { disputeId, award: String(form.get('award')), opinion: String(form.get('opinion')) };
          void act(input, async (idempotencyKey) => (await ask(RULE, { input: { ...input, idempotencyKey } })).resolveDispute?.userErrors);
        }}>
          <Field label={`What the agent gets of ${amount(task.charge ?? task.price ?? '0')}`} name="award" refusals={refusals}>{(field) => <input {...field} required inputMode="decimal" />}</Field>
          <Field label="Opinion" name="opinion" refusals={refusals}>{(field) => <input {...field} required />}</Field>
          <button type="submit" disabled={busy}>Rule</button>
        </form>
      )}
    </>
  );
}
