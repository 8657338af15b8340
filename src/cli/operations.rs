//! The GraphQL documents that the command line sends. Each has one field at its root. They are the whole of what it knows about the
//! schema; a test validates them against it.

/// Variables: `input: RegisterUserInput!`.
pub(super) const REGISTER_USER: &str = "\
mutation RegisterUser($input: RegisterUserInput!) {
  registerUser(input: $input) {
    tokens { accessToken user { id } }
    userErrors { code message field }
  }
}";

/// Variables: `input: LoginInput!`.
pub(super) const LOGIN: &str = "\
mutation Login($input: LoginInput!) {
  login(input: $input) {
    tokens { accessToken user { id } }
    userErrors { code message field }
  }
}";

/// Variables: `input: IssueCreditsInput!`.
pub(super) const ISSUE_CREDITS: &str = "\
mutation IssueCredits($input: IssueCreditsInput!) {
  issueCredits(input: $input) {
    transfer { id kind amount debit { id kind } credit { id kind user { displayName } } }
    userErrors { code message field }
  }
}";

/// Variables: `input: RegisterAgentInput!`.
pub(super) const REGISTER_AGENT: &str = "\
mutation RegisterAgent($input: RegisterAgentInput!) {
  registerAgent(input: $input) {
    agent { id name }
    userErrors { code message field }
  }
}";

/// Variables: `input: RetireAgentInput!`.
pub(super) const RETIRE_AGENT: &str = "\
mutation RetireAgent($input: RetireAgentInput!) {
  retireAgent(input: $input) {
    agent { id status }
    userErrors { code message field }
  }
}";

/// Variables: `input: ExecuteTaskInput!`.
pub(super) const EXECUTE_TASK: &str = "\
mutation ExecuteTask($input: ExecuteTaskInput!) {
  executeTask(input: $input) {
    task { id status auction { id } }
    userErrors { code message field }
  }
}";

/// Variables: `input: SubmitBidInput!`.
pub(super) const SUBMIT_BID: &str = "\
mutation SubmitBid($input: SubmitBidInput!) {
  submitBid(input: $input) {
    bid { id price }
    userErrors { code message field }
  }
}";

/// Variables: `input: AwardAuctionInput!`.
pub(super) const AWARD_AUCTION: &str = "\
mutation AwardAuction($input: AwardAuctionInput!) {
  awardAuction(input: $input) {
    auction { id status }
    userErrors { code message field }
  }
}";

/// Variables: `input: RateAgentInput!`.
pub(super) const RATE_AGENT: &str = "\
mutation RateAgent($input: RateAgentInput!) {
  rateAgent(input: $input) {
    rating { id stars }
    userErrors { code message field }
  }
}";

/// Who asks.
pub(super) const ME: &str = "\
query Me {
  me { id displayName wallet { available inEscrow } }
}";

/// The caller's own agents.
pub(super) const MY_AGENTS: &str = "\
query MyAgents {
  me { agents(first: 100) { nodes { id name status module { sha256 } } } }
}";

/// What agents of a capability have earned; for administrators. Variables: `capabilities: [String!]!`, `after: String`.
pub(super) const EARNINGS: &str = "\
query Earnings($capabilities: [String!]!, $after: String) {
  agents(filter: { capabilities: $capabilities, status: ACTIVE }, first: 100, after: $after) {
    nodes { id earnings }
    pageInfo { hasNextPage endCursor }
  }
}";

/// One agent's account and reputation. Variables: `id: ID!`.
pub(super) const AGENT: &str = "\
query Agent($id: ID!) {
  agent(id: $id) { id name earnings reputation { score tasks successes } }
}";

/// A task with its auction, bids and channel. Variables: `id: ID!`.
pub(super) const TASK: &str = "\
query Task($id: ID!) {
  task(id: $id) {
    id
    status
    title
    budget
    price
    paid
    failureCode
    failureMessage
    createdAt
    awardedAt
    startedAt
    finishedAt
    agent { id name }
    channel { id status closeReason deposit paid nonce }
    auction {
      id
      status
      kind
      budget
      priceWeight
      reputationWeight
      bidCount
      clearingPrice
      winningBid { id }
      bids(first: 100) {
        nodes {
          id
          price
          status
          rank
          reputation
          score { total price reputation }
          agent { id name }
        }
      }
    }
  }
}";

/// What came of a task. Variables: `taskId: ID!`.
pub(super) const TASK_RESULT: &str = "\
query TaskResult($taskId: ID!) {
  taskResult(taskId: $taskId) {
    outcome
    output
    logs
    faultCode
    faultMessage
    fuel
    peakMemoryBytes
    duration
    moduleSha256
    inputSha256
    outputSha256
    cost
  }
}";

/// The movements of credits for a task; all of them for administrators. Variables: `taskId: ID!`.
pub(super) const TRANSFERS: &str = "\
query Transfers($taskId: ID!) {
  transfers(filter: { taskId: $taskId }, last: 100) {
    nodes {
      id
      kind
      amount
      debit { id kind user { displayName } agent { name } }
      credit { id kind user { displayName } agent { name } }
    }
    pageInfo { hasPreviousPage }
  }
}";

/// The books; for administrators.
pub(super) const LEDGER_AUDIT: &str = "\
query LedgerAudit {
  ledgerAudit { ok checks { name statement violations } }
}";

/// What happens to a task, to its end. Variables: `taskId: ID!`, `after: EventCursor`.
pub(super) const TASK_EVENTS: &str = "\
subscription TaskEvents($taskId: ID!, $after: EventCursor) {
  taskEvents(taskId: $taskId, after: $after) {
    id
    cursor
    kind
    occurredAt
    ... on TaskEvent { amount fee returned attempt reason }
    ... on AuctionEvent { amount bidCount reason }
    ... on BidEvent { bidCount }
    ... on ChannelEvent { amount fee returned reason }
  }
}";

/// What moves an agent's reputation. Variables: `agentId: ID!`, `after: EventCursor`.
pub(super) const REPUTATION_EVENTS: &str = "\
subscription ReputationEvents($agentId: ID!, $after: EventCursor) {
  reputationEvents(agentId: $agentId, after: $after) {
    id
    cursor
    kind
    occurredAt
    ... on ReputationChangedEvent { scoreBefore scoreAfter reason }
  }
}";

#[cfg(test)]
pub(super) const ALL: &[&str] = &[
    REGISTER_USER,
    LOGIN,
    ISSUE_CREDITS,
    REGISTER_AGENT,
    RETIRE_AGENT,
    EXECUTE_TASK,
    SUBMIT_BID,
    AWARD_AUCTION,
    RATE_AGENT,
    ME,
    MY_AGENTS,
    EARNINGS,
    AGENT,
    TASK,
    TASK_RESULT,
    TRANSFERS,
    LEDGER_AUDIT,
    TASK_EVENTS,
    REPUTATION_EVENTS,
];
