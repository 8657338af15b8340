// Delegations of one's own, and one as a tree of steps: how far it is and where its credits are.

import { ask } from './api';
import { agentOf, count, detailOf, moneyOf, titleOf, toneOf, words } from './events';
import { graphql, type Result } from './graphql';
import { HISTORY, useHistory } from './history';
import { amount } from './money';
import { Badge, Bar, Credits, Empty, Figure, Id, Json, Panel, Refusals, say, Shown, SignInFirst, Source, Split, Time, Trouble, usePages } from './parts';
import { useIntent, useQuery } from './query';
import type { Route } from './router';
import { viewer } from './session';

const LIST = graphql(`
  query Delegations($after: String) {
    delegations(first: 30, after: $after, filter: { group: false }) {
      pageInfo { endCursor hasNextPage }
      nodes { id goal status progress budget spent returned agentsCount source createdAt finishedAt }
    }
  }
`);

const COMMAND = "zerostate delegate --goal 'Count the words' --budget 5 --capability text.stats --input README.md --follow";

export function Delegations() {
  const { after, pager } = usePages('delegations');
  const variables = { after };
  const answer = useQuery(LIST, variables, { skip: !viewer.value, when: (event) => !after && event.__typename !== 'BidEvent', every: 10_000 });
  return (
    <>
      <h1 tabIndex={-1}>Delegations</h1>
      <Panel title="Goals that several agents reach" wide actions={viewer.value && <Source document={LIST} variables={variables} of="Delegations" />}>
        {!viewer.value
          ? <SignInFirst adds="A delegation is seen by who pays for it. Sign in to see yours." />
          : (
            <Shown answer={answer}>
              {({ delegations }) => !delegations || delegations.nodes.length === 0
                ? <Empty command={COMMAND}>You delegated nothing yet. One goal, a step for each capability:</Empty>
                : (
                  <>
                    <div class="scroll" tabIndex={0} role="group" aria-label="Delegations">
                      <table>
                        <thead><tr><th scope="col">Goal</th><th scope="col">Status</th><th scope="col">Progress</th><th scope="col" class="right">Budget</th><th scope="col" class="right">Spent</th><th scope="col" class="right">Returned</th><th scope="col" class="right">Agents</th><th scope="col">Begun</th><th scope="col">Ended</th></tr></thead>
                        <tbody>
                          {delegations.nodes.map((one) => (
                            <tr key={one.id}>
                              <td><Id of={one.id} label={one.goal} /></td>
                              <td><Badge>{one.status}</Badge></td>
                              <td><span class="ratio"><Bar percent={one.progress ?? 0} tone={one.status === 'FAILED' ? 'bad' : 'good'} /><span class="num">{one.progress ?? 0} %</span></span></td>
                              <td class="right"><Credits of={one.budget} /></td>
                              <td class="right"><Credits of={one.spent} /></td>
                              <td class="right"><Credits of={one.returned} /></td>
                              <td class="right num">{one.agentsCount ?? '–'}</td>
                              <td><Time at={one.createdAt} /></td>
                              <td><Time at={one.finishedAt} /></td>
                            </tr>
                          ))}
                        </tbody>
                      </table>
                    </div>
                    {pager(delegations.pageInfo)}
                  </>
                )}
            </Shown>
          )}
      </Panel>
    </>
  );
}

const COST = graphql(`
  fragment CostParts on CostNode { kind name budget held paid fee returned task { id status agent { id name } } }
`);
const STEP = graphql(`
  fragment StepParts on DelegationStep {
    id name title kind status capabilities dependsOn attempts replicas agree failureCode failureMessage startedAt finishedAt
    cost { budget held paid fee returned children { ...CostParts } } task { id status agent { id name } }
  }
`, [COST]);

const ONE = graphql(`
  query Delegation($id: ID!) {
    delegation(id: $id) {
      id goal status progress priority source budget planningBudget spent returned agentsCount createdAt plannedAt finishedAt deadline
      failureCode failureMessage output parent { id goal }
      costTree { budget held paid fee returned }
      steps { ...StepParts delegation { id progress steps { ...StepParts delegation { id progress steps { ...StepParts } } } } }
    }
  }
`, [STEP]);

type One = NonNullable<Result<typeof ONE>['delegation']>;
type Step = Result<typeof STEP> & { delegation?: { id: string; progress: number | null; steps: readonly Step[] | null } | null };

const CANCEL = graphql(`
  mutation CancelDelegation($input: CancelDelegationInput!) { cancelDelegation(input: $input) { delegation { id } userErrors { code message field } } }
`);

export function Delegation({ route }: { route: Route }) {
  const { id } = route;
  const answer = useQuery(ONE, { id }, { skip: !viewer.value, every: 15_000 });
  const history = useHistory('delegation', id, answer.reload);
  if (!viewer.value) {
    return (
      <>
        <h1 tabIndex={-1}>Delegation <span class="id">{id}</span></h1>
        <Panel title="Private" wide><SignInFirst adds="A delegation is seen by who pays for it. Sign in as them and this link shows it." /></Panel>
      </>
    );
  }
  return (
    <>
      <h1 tabIndex={-1}>{answer.data?.delegation?.goal ?? 'Delegation'} <span class="id">{id}</span></h1>
      <Shown answer={answer}>
        {({ delegation }) => !delegation
          ? <Empty command={`zerostate delegate --show ${id}`}>There is no such delegation, or it is not yours to see. Ask as its owner:</Empty>
          : (
            <>
              <Money delegation={delegation} reload={answer.reload} />
              <Panel title="Steps and costs" wide actions={<Source document={ONE} variables={{ id }} of="Steps and costs" />}><Tree delegation={delegation} /></Panel>
              <div class="columns even">
                <Panel title="Every event" actions={<Source document={HISTORY.delegation} variables={{ id }} of="Every event" />}>
                  {history.fault && <Trouble fault={history.fault} />}
                  <div class="scroll" tabIndex={0} role="group" aria-label="Events of the delegation">
                    <table>
                      <thead><tr><th scope="col" class="right">#</th><th scope="col">Time</th><th scope="col">Event</th><th scope="col">Detail</th><th scope="col" class="right">Credits</th></tr></thead>
                      <tbody>
                        {history.events.map((event, at) => {
                          const agent = agentOf(event);
                          return (
                            <tr key={event.cursor}>
                              <td class="right num">{at + 1}</td>
                              <td><Time at={event.occurredAt} /></td>
                              <td><Badge tone={toneOf(event)}>{titleOf(event)}</Badge></td>
                              <td class="soft">{agent && <Id of={agent.id} label={agent.name} />} {detailOf(event)}</td>
                              <td class="right"><Credits of={moneyOf(event) || null} /></td>
                            </tr>
                          );
                        })}
                      </tbody>
                    </table>
                  </div>
                </Panel>
                <Panel title="Output" actions={<Source document={ONE} variables={{ id }} of="Output" />}>
                  {delegation.output == null ? <p class="soft">{delegation.failureMessage ?? 'It has no output yet.'} {delegation.failureCode && <code>{delegation.failureCode}</code>}</p> : <Json value={delegation.output} />}
                </Panel>
              </div>
            </>
          )}
      </Shown>
    </>
  );
}

function Money({ delegation, reload }: { delegation: One; reload: () => void }) {
  const intent = useIntent();
  const query = (fields: string) => `query($id: ID!) { delegation(id: $id) { ${fields} } }`;
  const variables = { id: delegation.id };
  const cost = delegation.costTree;
  const over = ['COMPLETED', 'FAILED', 'CANCELLED', 'STOPPING'].includes(delegation.status);
  const cancel = async () => {
    const input = { delegationId: delegation.id };
    const done = await intent.run(input, async (idempotencyKey) => (await ask(CANCEL, { input: { ...input, idempotencyKey } })).cancelDelegation?.userErrors);
    if (done) {
      say('Called off');
      reload();
    }
  };
  return (
    <>
      <dl class="figures" aria-label="The delegation in figures">
        <Figure label="Status" value={<Badge>{delegation.status}</Badge>} query={query('status failureCode failureMessage')} variables={variables} note={delegation.failureMessage ?? (delegation.finishedAt ? <>ended <Time at={delegation.finishedAt} /></> : <>until <Time at={delegation.deadline} /></>)} />
        <Figure label="Progress" value={`${delegation.progress ?? 0} %`} query={query('progress steps { name status }')} variables={variables} note={<Bar percent={delegation.progress ?? 0} tone="good" />} />
        <Figure label="Budget" value={<Credits of={delegation.budget} unit />} query={query('budget planningBudget')} variables={variables} note={cost && <Split budget={delegation.budget} paid={cost.paid} held={cost.held} returned={cost.returned} />} />
        <Figure label="Paid" value={<Credits of={cost?.paid ?? delegation.spent} unit />} query={query('spent costTree { paid fee }')} variables={variables} note={cost && cost.fee !== '0' ? `${amount(cost.fee)} of it fee` : `to ${count(delegation.agentsCount ?? 0, 'agent')}`} />
        <Figure label="Held" value={<Credits of={cost?.held} unit />} query={query('costTree { held }')} variables={variables} note="set aside now" />
        <Figure label="Returned" value={<Credits of={cost?.returned ?? delegation.returned} unit />} query={query('returned costTree { returned }')} variables={variables} note="not needed" />
      </dl>
      <p class="facts">
        Plan by {delegation.source === 'CLIENT' ? 'you' : delegation.source === 'AGENT' ? 'an agent' : 'the capabilities'} · priority {words(delegation.priority)} · begun <Time at={delegation.createdAt} />
        {delegation.parent && <> · a step of <Id of={delegation.parent.id} label={delegation.parent.goal} /></>}
        {!over && <> · <button type="button" disabled={intent.busy} onClick={() => void cancel()}>Call it off</button></>}
      </p>
      {intent.fault && <Trouble fault={intent.fault} />}
      <Refusals of={intent.refusals} />
    </>
  );
}

/** The steps, those of groups below them, each with what it takes, has and costs; a line in time shows when. */
function Tree({ delegation }: { delegation: One }) {
  const steps = (delegation.steps ?? []) as readonly Step[];
  if (steps.length === 0) return <p class="loading">The plan is being made.</p>;
  const begun = Date.parse(delegation.createdAt);
  const end = delegation.finishedAt ? Date.parse(delegation.finishedAt) : Date.now();
  const at = (instant: string | null) => (instant ? (100 * (Date.parse(instant) - begun)) / Math.max(end - begun, 1) : 100);
  const rows = (some: readonly Step[], level: number, within: string) => some.flatMap((step): preact.JSX.Element[] => {
    const work = step.cost.children.filter((child) => child.task);
    const task = work.length < 2 ? (step.task ?? work[0]?.task) : null;
    const key = `${within}/${step.id}`;
    return [
      <tr key={key} class={`level-${Math.min(level, 4)}`}>
        <th scope="row"><span class="sr">{`level ${level}: `}</span>{step.name}{step.title !== step.name && <span class="soft"> {step.title}</span>}<small class="under">{step.kind === 'GROUP' ? 'group' : step.capabilities.join(', ')}{step.dependsOn.length > 0 && ` after ${step.dependsOn.join(', ')}`}{step.replicas > 1 && `, ${step.agree} of ${step.replicas} must agree`}</small></th>
        <td><Badge>{step.status}</Badge>{step.failureCode && <small class="under" title={step.failureMessage ?? ''}><code>{step.failureCode}</code></small>}</td>
        <td>{step.delegation ? <Id of={step.delegation.id} label={`${step.delegation.progress ?? 0} % of the group`} /> : task && <Id of={task.id} label={task.agent?.name ?? 'task'} />}</td>
        <td class="lane">{step.startedAt && <span class={step.status === 'FAILED' ? 'bad' : 'good'} title={`${step.startedAt} – ${step.finishedAt ?? 'now'}`} style={{ left: `${at(step.startedAt)}%`, width: `${Math.max(at(step.finishedAt) - at(step.startedAt), 1)}%` }} />}</td>
        <td class="right num">{step.attempts}</td>
        <td class="right"><Credits of={step.cost.budget} /></td>
        <td class="right"><Credits of={step.cost.held} /></td>
        <td class="right"><Credits of={step.cost.paid} /></td>
        <td class="right"><Credits of={step.cost.returned} /></td>
      </tr>,
      ...(work.length > 1 ? work.map((child) => (
        <tr key={`${key}/${child.task?.id}`} class={`level-${Math.min(level + 1, 4)} past`}>
          <th scope="row"><span class="sr">{`level ${level + 1}: `}</span>{child.task && <Id of={child.task.id} />}</th>
          <td>{child.task && <Badge>{child.task.status}</Badge>}</td>
          <td>{child.task?.agent && <Id of={child.task.agent.id} label={child.task.agent.name} />}</td>
          <td class="lane" /><td />
          <td class="right"><Credits of={child.budget} /></td>
          <td class="right"><Credits of={child.held} /></td>
          <td class="right"><Credits of={child.paid} /></td>
          <td class="right"><Credits of={child.returned} /></td>
        </tr>
      )) : []),
      ...(step.delegation?.steps ? rows(step.delegation.steps, level + 1, key) : []),
    ];
  });
  const cost = delegation.costTree;
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Steps and costs">
      <table class="tree">
        <thead><tr><th scope="col">Step</th><th scope="col">Status</th><th scope="col">By</th><th scope="col">When</th><th scope="col" class="right">Begun</th><th scope="col" class="right">Budget</th><th scope="col" class="right">Held</th><th scope="col" class="right">Paid</th><th scope="col" class="right">Returned</th></tr></thead>
        <tbody>{rows(steps, 1, '')}</tbody>
        {cost && <tfoot><tr><th scope="row" colSpan={5}>The whole</th><td class="right"><Credits of={cost.budget} /></td><td class="right"><Credits of={cost.held} /></td><td class="right"><Credits of={cost.paid} /></td><td class="right"><Credits of={cost.returned} /></td></tr></tfoot>}
      </table>
    </div>
  );
}
