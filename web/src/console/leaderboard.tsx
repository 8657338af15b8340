// Who does the best work, what the scores are made of, and one agent with its history and its earnings.

import { ask } from './api';
import { Lines } from './chart';
import { words } from './events';
import { graphql, type Result } from './graphql';
import { amount, milliseconds, place, span } from './money';
import { Badge, Choice, Credits, Empty, Field, Figure, Id, Panel, Refusals, say, Shown, Source, Sparkline, Time, Trouble, usePages } from './parts';
import { useIntent, useQuery } from './query';
import { link, type Route } from './router';
import { viewer } from './session';

const FACTORS = graphql(`
  fragment FactorParts on Reputation { factors { name value weight points effectiveSamples prior } }
`);

const BOARD = graphql(`
  query Leaderboard($capability: String) {
    leaderboard(first: 50, capability: $capability) {
      rank score tasks successes
      agent { id name capabilities price online runtime reputation { earned successRate meanDuration ...FactorParts } reputationEvents(first: 20) { nodes { id scoreAfter } } }
    }
  }
`, [FACTORS]);

const CAPABILITIES = graphql(`
  query Capabilities { agents(first: 100, filter: { status: ACTIVE }) { nodes { capabilities } } }
`);

type Factors = Result<typeof FACTORS>['factors'];

/** The score as the sum of its factors, each as long as its points. */
function Score({ factors, score }: { factors: Factors; score: string }) {
  return (
    <span class="ratio">
      <span class="stack" role="img" aria-label={factors.map((one) => `${words(one.name)} ${one.points} of ${one.weight}`).join(', ')}>
        {factors.map((one) => <span key={one.name} class={`factor-${one.name.toLowerCase()}`} style={{ width: `${place(one.points)}%` }} title={`${words(one.name)}: ${one.points} of ${one.weight}`} />)}
      </span>
      <b class="num">{score}</b>
    </span>
  );
}

const NAMES = ['SUCCESS', 'RATING', 'TIMELINESS', 'COST', 'EXPERIENCE'] as const;

export function Leaderboard({ route }: { route: Route }) {
  const capability = route.search['capability'] ?? '';
  const variables = { capability: capability || null };
  const answer = useQuery(BOARD, variables, { when: (event) => event.__typename === 'ReputationChangedEvent', every: 30_000 });
  const capabilities = useQuery(CAPABILITIES, {});
  const known = [...new Set((capabilities.data?.agents?.nodes ?? []).flatMap((agent) => agent.capabilities))].sort();
  return (
    <>
      <h1 tabIndex={-1}>Leaderboard</h1>
      <Panel title="Agents by reputation" wide actions={
        <>
          <Choice label="Capability" value={capability} options={[['', 'any'], ...known.map((one): [string, string] => [one, one])]} choose={(value) => (location.hash = link('leaderboard', '', { capability: value }))} />
          <Source document={BOARD} variables={variables} of="Leaderboard" />
        </>
      }>
        <p class="legend">{NAMES.map((name) => <span key={name}><i class={`factor-${name.toLowerCase()}`} />{words(name)}</span>)}<span class="soft">their points make the score; an agent without evidence stands at 42.5</span></p>
        <Shown answer={answer}>
          {({ leaderboard }) => !leaderboard || leaderboard.length === 0
            ? <Empty command="zerostate agent register my-agent --capability text.stats --price 0.5 --module agent.wasm">No agent has done work yet. To put one on the market:</Empty>
            : (
              <div class="scroll" tabIndex={0} role="group" aria-label="Leaderboard">
                <table>
                  <thead><tr><th scope="col" class="right">Rank</th><th scope="col">Agent</th><th scope="col">Score</th><th scope="col">Lately</th><th scope="col" class="right">Tasks</th><th scope="col" class="right">Success</th><th scope="col" class="right">Earned</th><th scope="col" class="right">Asks</th><th scope="col" class="right">Mean time</th><th scope="col">Capabilities</th></tr></thead>
                  <tbody>
                    {leaderboard.map(({ rank, score, tasks, successes, agent }) => (
                      <tr key={agent.id}>
                        <td class="right num">{rank}</td>
                        <td><Id of={agent.id} label={agent.name} />{!agent.online && <small class="under">offline</small>}</td>
                        <td>{agent.reputation ? <Score factors={agent.reputation.factors} score={score} /> : score}</td>
                        <td><Sparkline values={(agent.reputationEvents?.nodes ?? []).map((one) => place(one.scoreAfter)).reverse()} label={`The last scores of ${agent.name}`} /></td>
                        <td class="right num">{tasks}</td>
                        <td class="right num" title={`${successes} of ${tasks}`}>{agent.reputation?.successRate ? `${agent.reputation.successRate} %` : '–'}</td>
                        <td class="right"><Credits of={agent.reputation?.earned} /></td>
                        <td class="right"><Credits of={agent.price} /></td>
                        <td class="right num">{agent.reputation?.meanDuration ? span(milliseconds(agent.reputation.meanDuration)) : '–'}</td>
                        <td class="soft">{agent.capabilities.join(', ')}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
            )}
        </Shown>
      </Panel>
    </>
  );
}

const ONE = graphql(`
  query Agent($id: ID!) {
    agent(id: $id) {
      id name description capabilities runtime status price pricePerMillionFuel minPrice capacity inWork online lastSeenAt createdAt score earnings
      owner { id displayName } module { id sha256 sizeBytes interface }
      reputation { score version asOf tasks successes failures successRate successRateLowerBound earned meanDuration evidenceCount ...FactorParts }
    }
  }
`, [FACTORS]);

const EVENTS = graphql(`
  query ReputationOf($id: ID!, $after: String) {
    reputationEvents(agentId: $id, first: 50, after: $after) {
      pageInfo { endCursor hasNextPage }
      nodes { id cause amount weight scoreBefore scoreAfter createdAt task { id title } }
    }
  }
`);

type One = NonNullable<Result<typeof ONE>['agent']>;

export function Agent({ route }: { route: Route }) {
  const { id } = route;
  const answer = useQuery(ONE, { id }, { when: (event) => 'agentId' in event && event.agentId === id, every: 20_000 });
  return (
    <>
      <h1 tabIndex={-1}>{answer.data?.agent?.name ?? 'Agent'} <span class="id">{id}</span></h1>
      <Shown answer={answer}>
        {({ agent }) => !agent
          ? <Empty command="zerostate agent list">There is no agent with this id. Yours are told by:</Empty>
          : (
            <>
              <Facts agent={agent} />
              {agent.earnings != null && <Earnings agent={agent} reload={answer.reload} />}
              <div class="columns even">
                <Panel title="What the score is made of" actions={<Source document={ONE} variables={{ id }} of="What the score is made of" />}><Made agent={agent} /></Panel>
                <Evidence id={id} />
              </div>
            </>
          )}
      </Shown>
    </>
  );
}

function Facts({ agent }: { agent: One }) {
  const query = (fields: string) => `query($id: ID!) { agent(id: $id) { ${fields} } }`;
  const variables = { id: agent.id };
  const reputation = agent.reputation;
  return (
    <>
      <dl class="figures" aria-label="The agent in figures">
        <Figure label="Score" value={agent.score} query={query('score reputation { score asOf factors { name points } }')} variables={variables} note={reputation && `${reputation.evidenceCount} pieces of evidence`} />
        <Figure label="Tasks" value={reputation?.tasks ?? '–'} query={query('reputation { tasks successes failures }')} variables={variables} note={reputation && `${reputation.successes} good, ${reputation.failures} not`} />
        <Figure label="Success" value={reputation?.successRate ? `${reputation.successRate} %` : '–'} query={query('reputation { successRate successRateLowerBound }')} variables={variables} note={reputation?.successRateLowerBound ? `reliably ${reputation.successRateLowerBound} %` : 'no task yet'} />
        <Figure label="Earned" value={<Credits of={reputation?.earned} unit />} query={query('reputation { earned }')} variables={variables} note="over its life" />
        <Figure label="Asks" value={<Credits of={agent.price} unit />} query={query('price minPrice pricePerMillionFuel')} variables={variables} note={agent.pricePerMillionFuel ? `and ${agent.pricePerMillionFuel} a million fuel` : agent.minPrice ? `at least ${amount(agent.minPrice)}` : 'a task'} />
        <Figure label="In work" value={agent.inWork} query={query('inWork capacity online lastSeenAt')} variables={variables} note={agent.online ? 'online' : <>offline{agent.lastSeenAt && <> since <Time at={agent.lastSeenAt} /></>}</>} />
      </dl>
      <p class="facts">
        <Badge>{agent.status}</Badge> {words(agent.runtime)} · can do <strong>{agent.capabilities.join(', ')}</strong>{agent.owner && <> · owned by {agent.owner.displayName}</>} · since <Time at={agent.createdAt} full />
        {agent.module && <> · module <span class="id" title={agent.module.sha256}>{agent.module.sha256.slice(0, 12)}</span> ({words(agent.module.interface)})</>}
        {agent.description && <><br />{agent.description}</>}
      </p>
    </>
  );
}

const WITHDRAW = graphql(`
  mutation Withdraw($input: WithdrawEarningsInput!) { withdrawEarnings(input: $input) { transfer { id amount } userErrors { code message field } } }
`);

/** What the agent has earned and its owner not yet taken. */
function Earnings({ agent, reload }: { agent: One; reload: () => void }) {
  const intent = useIntent();
  const mine = viewer.value?.id === agent.owner?.id;
  const send = async (form: FormData) => {
    const sum = String(form.get('amount')).trim();
    const input = { agentId: agent.id, ...(sum ? { amount: sum } : {}) };
    const done = await intent.run(input, async (idempotencyKey) => (await ask(WITHDRAW, { input: { ...input, idempotencyKey } })).withdrawEarnings?.userErrors);
    if (!done) return;
    say('Earnings withdrawn');
    reload();
  };
  return (
    <Panel title="Earnings" wide actions={<Source document={ONE} variables={{ id: agent.id }} of="Earnings" />}>
      {!mine ? <p class="big"><Credits of={agent.earnings} unit /> <span class="note">earned and not withdrawn; its owner may withdraw it</span></p> : <form class="inline" aria-label="Withdraw earnings" onSubmit={(event) => {
        event.preventDefault();
        void send(new FormData(event.currentTarget));
      }}>
        <p class="big"><Credits of={agent.earnings} unit /> <span class="note">earned and not withdrawn</span></p>
        <Field label="Amount" name="amount" hint="Empty: all of it" refusals={intent.refusals}>{(field) => <input {...field} inputMode="decimal" autoComplete="off" />}</Field>
        <button type="submit" disabled={intent.busy || agent.earnings === '0'}>Withdraw to your wallet</button>
      </form>}
      {intent.fault && <Trouble fault={intent.fault} />}
      <Refusals of={intent.refusals} shown={['amount']} />
    </Panel>
  );
}

function Made({ agent }: { agent: One }) {
  const reputation = agent.reputation;
  if (!reputation) return <Empty>Nothing is known of it yet.</Empty>;
  return (
    <>
      <Score factors={reputation.factors} score={reputation.score} />
      <div class="scroll" tabIndex={0} role="group" aria-label="Factors">
        <table>
          <thead><tr><th scope="col">Factor</th><th scope="col" class="right">Value</th><th scope="col" class="right">Weight</th><th scope="col" class="right">Points</th><th scope="col" class="right">Evidence</th><th scope="col" class="right">Begins at</th></tr></thead>
          <tbody>
            {reputation.factors.map((one) => (
              <tr key={one.name}>
                <th scope="row"><i class={`dot factor-${one.name.toLowerCase()}`} />{words(one.name)}</th>
                <td class="right num">{one.value} %</td>
                <td class="right num">{one.weight}</td>
                <td class="right num"><b>{one.points}</b></td>
                <td class="right num">{one.effectiveSamples}</td>
                <td class="right num">{one.prior} %</td>
              </tr>
            ))}
          </tbody>
          <tfoot><tr><th scope="row">The score</th><td /><td class="right num">100</td><td class="right num"><b>{reputation.score}</b></td><td /><td /></tr></tfoot>
        </table>
      </div>
      <p class="soft">Value × weight makes the points ({reputation.version}). Evidence counts by amount, less when it is old, and less from the same buyer again.</p>
    </>
  );
}

function Evidence({ id }: { id: string }) {
  const { after, pager } = usePages('the evidence');
  const variables = { id, after };
  const answer = useQuery(EVENTS, variables, { when: (event) => 'agentId' in event && event.agentId === id });
  const series = [...(answer.data?.reputationEvents?.nodes ?? [])].reverse();
  return (
    <Panel title="How it moved" actions={<Source document={EVENTS} variables={variables} of="How it moved" />}>
      <Shown answer={answer}>
        {({ reputationEvents }) => !reputationEvents || reputationEvents.nodes.length === 0
          ? <Empty command="zerostate agent offers ID">No work of it was settled yet. What it could claim now:</Empty>
          : (
            <>
              {series.length > 1 && <Lines title="The score after each settled task" times={series.map((one) => Date.parse(one.createdAt))} lines={[{ label: 'score', colour: 'info', values: series.map((one) => place(one.scoreAfter)) }]} />}
              <div class="scroll short" tabIndex={0} role="group" aria-label="Evidence">
                <table>
                  <thead><tr><th scope="col">Time</th><th scope="col">Cause</th><th scope="col">Task</th><th scope="col" class="right">Amount</th><th scope="col" class="right">Weight</th><th scope="col" class="right">Before</th><th scope="col" class="right">After</th></tr></thead>
                  <tbody>
                    {reputationEvents.nodes.map((one) => (
                      <tr key={one.id}>
                        <td><Time at={one.createdAt} /></td>
                        <td><Badge tone={place(one.scoreAfter) < place(one.scoreBefore) ? 'bad' : 'good'}>{one.cause}</Badge></td>
                        <td>{one.task ? <Id of={one.task.id} label={one.task.title} /> : <span class="none">private</span>}</td>
                        <td class="right"><Credits of={one.amount} /></td>
                        <td class="right num">{one.weight} %</td>
                        <td class="right num">{one.scoreBefore}</td>
                        <td class="right num">{one.scoreAfter}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              {pager(reputationEvents.pageInfo)}
            </>
          )}
      </Shown>
    </Panel>
  );
}
