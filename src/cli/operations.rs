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

/// The caller's own agents, with what a person asks of them.
pub(super) const LIST_AGENTS: &str = "\
query ListAgents {
  me {
    agents(first: 100) { nodes { id name status runtime capabilities price minPrice online earnings score module { sha256 } } }
  }
}";

/// One agent as its owner sees it. Variables: `id: ID!`.
pub(super) const SHOW_AGENT: &str = "\
query ShowAgent($id: ID!) {
  agent(id: $id) {
    id
    name
    description
    status
    runtime
    capabilities
    price
    minPrice
    promisedDuration
    online
    lastSeenAt
    earnings
    createdAt
    module { sha256 sizeBytes interface }
    reputation { score tasks successes failures successRate earned }
  }
}";

/// Variables: `input: PauseAgentInput!`.
pub(super) const PAUSE_AGENT: &str = "\
mutation PauseAgent($input: PauseAgentInput!) {
  pauseAgent(input: $input) {
    agent { id name status }
    userErrors { code message field }
  }
}";

/// Variables: `input: ResumeAgentInput!`.
pub(super) const RESUME_AGENT: &str = "\
mutation ResumeAgent($input: ResumeAgentInput!) {
  resumeAgent(input: $input) {
    agent { id name status }
    userErrors { code message field }
  }
}";

/// Variables: `input: CreateApiKeyInput!`.
pub(super) const CREATE_API_KEY: &str = "\
mutation CreateApiKey($input: CreateApiKeyInput!) {
  createApiKey(input: $input) {
    apiKey { id name scopes expiresAt agent { id } }
    secret
    userErrors { code message field }
  }
}";

/// Variables: `input: WithdrawEarningsInput!`.
pub(super) const WITHDRAW_EARNINGS: &str = "\
mutation WithdrawEarnings($input: WithdrawEarningsInput!) {
  withdrawEarnings(input: $input) {
    transfer { id kind amount }
    userErrors { code message field }
  }
}";

/// Work that an outside agent won and nobody has claimed. Variables: `agentId: ID!`, `wait: Duration`.
pub(super) const WORK_OFFERS: &str = "\
query WorkOffers($agentId: ID!, $wait: Duration) {
  workOffers(agentId: $agentId, wait: $wait, first: 100) { taskId price claimBy claims task { title capabilities } }
}";

/// A task with all that its payer asks of it. Variables: `id: ID!`.
pub(super) const SHOW_TASK: &str = "\
query ShowTask($id: ID!) {
  task(id: $id) {
    id
    title
    status
    capabilities
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
    auction { id status closesAt bidCount }
    result { outcome output logs faultCode faultMessage fuel duration moduleSha256 cost }
  }
}";

/// The caller's tasks, the newest first. Variables: `filter: TaskFilter`, `first: Int`.
pub(super) const LIST_TASKS: &str = "\
query ListTasks($filter: TaskFilter, $first: Int) {
  tasks(filter: $filter, first: $first) {
    nodes { id title status capabilities budget price paid failureCode createdAt finishedAt agent { id name } }
    pageInfo { hasNextPage }
  }
}";

/// Variables: `input: CancelTaskInput!`.
pub(super) const CANCEL_TASK: &str = "\
mutation CancelTask($input: CancelTaskInput!) {
  cancelTask(input: $input) {
    task { id status title }
    userErrors { code message field }
  }
}";

/// Variables: `input: DelegateTaskInput!`.
pub(super) const DELEGATE_TASK: &str = "\
mutation DelegateTask($input: DelegateTaskInput!) {
  delegateTask(input: $input) {
    delegation { id status }
    userErrors { code message field }
  }
}";

/// Variables: `input: CancelDelegationInput!`.
pub(super) const CANCEL_DELEGATION: &str = "\
mutation CancelDelegation($input: CancelDelegationInput!) {
  cancelDelegation(input: $input) {
    delegation { id status }
    userErrors { code message field }
  }
}";

/// One level of what a delegation cost, with what is below it.
macro_rules! cost {
    () => { "" };
    ($level:tt $($below:tt)*) => {
        concat!(" children { kind name budget held paid fee returned task { id status }", cost!($($below)*), " }")
    };
}

/// A delegation with its steps, and what they and those of its groups cost. What is deeper is the group's own to tell: a query of all
/// levels would cost more than one may. Variables: `id: ID!`.
pub(super) const DELEGATION: &str = concat!(
    "query Delegation($id: ID!) {
  delegation(id: $id) {
    id
    goal
    status
    progress
    budget
    spent
    returned
    output
    failureCode
    failureMessage
    createdAt
    plannedAt
    finishedAt
    deadline
    steps { id name kind status attempts capabilities dependsOn budget failureCode failureMessage task { id status agent { id name } } }
    costTree { kind name budget held paid fee returned",
    cost!(step task step task),
    " }
  }
}"
);

/// What the command line asks of any event.
macro_rules! event {
    () => {
        "    __typename
    id
    cursor
    kind
    occurredAt
    ... on TaskEvent { taskId amount fee returned attempt reason agent { id name } }
    ... on AuctionEvent { auctionId amount bidCount closesAt reason agent { id name } }
    ... on BidEvent { auctionId bidCount price agent { id name } }
    ... on ChannelEvent { channelId amount fee returned reason agent { id name } }
    ... on ReputationChangedEvent { agentId scoreBefore scoreAfter reason agent { id name } }
    ... on CreditsEvent { amount agent { id name } }
    ... on DelegationEvent { delegationId step attempt amount returned reason }
"
    };
}

/// What happens to a task, to its end. Variables: `taskId: ID!`, `after: EventCursor`.
pub(super) const TASK_EVENTS: &str = concat!(
    "subscription TaskEvents($taskId: ID!, $after: EventCursor) {
  taskEvents(taskId: $taskId, after: $after) {
",
    event!(),
    "  }
}"
);

/// What happens to a delegation, its steps and their tasks, to its end. Variables: `delegationId: ID!`, `after: EventCursor`.
pub(super) const DELEGATION_EVENTS: &str = concat!(
    "subscription DelegationEvents($delegationId: ID!, $after: EventCursor) {
  delegationEvents(delegationId: $delegationId, after: $after) {
",
    event!(),
    "  }
}"
);

/// What happens to an auction, to its end. Variables: `auctionId: ID!`, `after: EventCursor`.
pub(super) const AUCTION_EVENTS: &str = concat!(
    "subscription AuctionEvents($auctionId: ID!, $after: EventCursor) {
  auctionEvents(auctionId: $auctionId, after: $after) {
",
    event!(),
    "  }
}"
);

/// Everything public. Variables: `filter: MarketEventFilter`, `after: EventCursor`.
pub(super) const MARKET_EVENTS: &str = concat!(
    "subscription MarketEvents($filter: MarketEventFilter, $after: EventCursor) {
  marketEvents(filter: $filter, after: $after) {
",
    event!(),
    "  }
}"
);

/// What moves an agent's reputation. Variables: `agentId: ID!`, `after: EventCursor`.
pub(super) const REPUTATION_EVENTS: &str = concat!(
    "subscription ReputationEvents($agentId: ID!, $after: EventCursor) {
  reputationEvents(agentId: $agentId, after: $after) {
",
    event!(),
    "  }
}"
);

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
    LIST_AGENTS,
    SHOW_AGENT,
    PAUSE_AGENT,
    RESUME_AGENT,
    CREATE_API_KEY,
    WITHDRAW_EARNINGS,
    WORK_OFFERS,
    SHOW_TASK,
    LIST_TASKS,
    CANCEL_TASK,
    DELEGATE_TASK,
    CANCEL_DELEGATION,
    DELEGATION,
    TASK_EVENTS,
    DELEGATION_EVENTS,
    AUCTION_EVENTS,
    MARKET_EVENTS,
    REPUTATION_EVENTS,
];
