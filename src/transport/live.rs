//! Subscriptions on their way to those who follow: an event is worked out and written as JSON once for all who ask the same.
//!
//! ```text
//! open ─► checks of this subscriber ─► lines of the log that it may see ─┬─► answer of the shape, once ─► every subscriber
//!                                                                       └─► answer of its own, where that depends on who asks
//! ```
//!
//! A [`Shape`] is what subscribers have in common who ask for the same: the document, the operation, the variables besides the
//! place to begin behind, and whether anybody known asks. Each subscriber has its own checks, its own place in the log and its own
//! lines. Only the answer to a line is shared, and only if no resolver looked at who asks and none failed: then it is the same
//! answer for all, whoever was the first to want it. Where one looked, every subscriber is answered for itself.
//!
//! An answer is kept for as long as somebody still holds the line that came by the live feed. What is read from the log again,
//! and what only one subscriber follows, is not kept at all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_graphql::{
    Name, Positioned, Request, Response, ServerError, Variables,
    parser::types::{Directive, ExecutableDocument, Selection, SelectionSet},
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::OnceCell;
use tracing::Instrument;

use super::{
    Edge,
    answer::{Fault, complete},
    operation::{Counted, Operation, did_not_start, select, went},
    trail::Trail,
};
use crate::{
    caller::Caller,
    graphql::{Budget, Delivery, Item, Lines, Looks, Opening, Remarks, Session, Telling},
    store::{Cursor, Line},
};

/// Answers that a shape keeps at most for subscribers who are slow; later ones are worked out again.
const KEPT: usize = 64;

/// What subscribers who ask for the same have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The SHA-256 of the document's text.
    document: [u8; 32],
    operation: Option<String>,
    /// As JSON.
    variables: String,
    /// Whether nobody in particular asks.
    nobody: bool,
}

impl Key {
    /// Of an operation, unless nobody can say which document it has.
    fn of(operation: &Operation, caller: &Caller) -> Option<Self> {
        let mut variables = operation.variables.clone();
        if let Some(after) = place_to_begin(operation) {
            variables.remove(&after);
        }
        Some(Self {
            document: operation.hash?,
            operation: operation.name.clone(),
            variables: serde_json::to_string(&variables).ok()?,
            nobody: matches!(caller, Caller::Anonymous),
        })
    }
}

/// The variable that says behind which event to begin, if it says nothing else: it has no part in any answer.
fn place_to_begin(operation: &Operation) -> Option<Name> {
    let selected = &select(&operation.document, operation.name.as_deref()).ok()?.node;
    let Selection::Field(root) = &selected.selection_set.node.items.first()?.node else { return None };
    let after = root.node.get_argument("after")?.node.to_string();
    let name = after.strip_prefix('$')?;
    let fragments = operation.document.fragments.values().map(|it| (&it.node.directives, &it.node.selection_set.node));
    let all = fragments.chain([(&selected.directives, &selected.selection_set.node)]);
    let uses: usize = all.map(|(directives, set)| in_directives(&after, directives) + in_set(&after, set)).sum();
    (uses == 1).then(|| Name::new(name))
}

/// How often a variable is used in a selection. A text that looks like it counts too, and a variable whose name begins with this
/// one's: what is shared less than it might be is right all the same.
fn in_set(variable: &str, set: &SelectionSet) -> usize {
    let uses = set.items.iter().map(|item| match &item.node {
        Selection::Field(field) => {
            let arguments = field.node.arguments.iter().map(|(_, value)| value.node.to_string());
            arguments.map(|value| value.matches(variable).count()).sum::<usize>()
                + in_directives(variable, &field.node.directives)
                + in_set(variable, &field.node.selection_set.node)
        }
        Selection::FragmentSpread(spread) => in_directives(variable, &spread.node.directives),
        Selection::InlineFragment(inline) => {
            in_directives(variable, &inline.node.directives) + in_set(variable, &inline.node.selection_set.node)
        }
    });
    uses.sum()
}

fn in_directives(variable: &str, directives: &[Positioned<Directive>]) -> usize {
    let values = directives.iter().flat_map(|it| &it.node.arguments).map(|(_, value)| value.node.to_string());
    values.map(|value| value.matches(variable).count()).sum()
}

type Table = HashMap<Key, Weak<Shape>>;

/// The shapes that are followed now. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Shapes(Arc<Mutex<Table>>);

impl Shapes {
    /// The shape of a question, shared with those who ask it already.
    fn of(&self, key: Option<Key>, question: &Question) -> Arc<Shape> {
        let Some(key) = key else { return Arc::new(Shape::new(question, None)) };
        let mut table = lock(&self.0);
        if let Some(shape) = table.get(&key).and_then(Weak::upgrade) {
            return shape;
        }
        let shape = Arc::new(Shape::new(question, Some((key.clone(), Arc::downgrade(&self.0)))));
        table.insert(key, Arc::downgrade(&shape));
        shape
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one answer to a line, or that it depends on who asks.
type Answer = Arc<OnceCell<Option<Arc<str>>>>;

/// What is asked for.
#[derive(Clone)]
struct Question {
    document: Arc<ExecutableDocument>,
    operation: Option<String>,
    variables: Variables,
}

impl Question {
    fn request(&self, session: Session) -> Request {
        let mut request = Request::new(String::new()).variables(self.variables.clone());
        request.operation_name.clone_from(&self.operation);
        request.set_parsed_query(ExecutableDocument::clone(&self.document));
        request.data(session)
    }
}

/// What is followed, and the answers that are on their way.
struct Shape {
    /// As the first of its subscribers asked. Where that one wanted to begin is not for the others.
    question: Question,
    /// Where it stands, if others may share it.
    listed: Option<(Key, Weak<Mutex<Table>>)>,
    answers: Mutex<VecDeque<(Weak<Line>, Answer)>>,
    teller: tokio::sync::Mutex<Option<Teller>>,
}

impl Drop for Shape {
    fn drop(&mut self) {
        let Some((key, table)) = &self.listed else { return };
        let Some(table) = table.upgrade() else { return };
        let mut table = lock(&table);
        // Somebody may have put another one there since the last subscriber of this one left.
        if table.get(key).is_some_and(|shape| shape.strong_count() == 0) {
            table.remove(key);
        }
    }
}

impl Shape {
    fn new(question: &Question, listed: Option<(Key, Weak<Mutex<Table>>)>) -> Self {
        Self { question: question.clone(), listed, answers: Mutex::default(), teller: tokio::sync::Mutex::default() }
    }

    /// The place of the answer to a line that others may want too.
    fn answer(self: &Arc<Self>, line: &Arc<Line>) -> Option<Answer> {
        if Arc::strong_count(self) < 2 {
            return None;
        }
        // Nobody else has it: it was read from the log, or everybody else has told it.
        let last = Arc::strong_count(line) < 2;
        let mut answers = lock(&self.answers);
        let known = answers.iter().rposition(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(line)));
        match known {
            Some(at) if last => answers.remove(at).map(|(_, answer)| answer),
            Some(at) => answers.get(at).map(|(_, answer)| Arc::clone(answer)),
            None if last => None,
            None => {
                answers.retain(|(of, _)| of.strong_count() > 0);
                if answers.len() >= KEPT {
                    answers.pop_front();
                }
                let answer = Answer::default();
                answers.push_back((Arc::downgrade(line), Arc::clone(&answer)));
                Some(answer)
            }
        }
    }

    /// Works the answer to a line out for all; nothing where it is not the same for all.
    async fn tell(&self, edge: &Edge, reader: &Reader, line: &Arc<Line>) -> Option<Arc<str>> {
        let mut kept = self.teller.lock().await;
        // Taken out for as long as it works: if whoever waits for it leaves, it must not answer the next line with this one.
        let mut teller = kept.take().unwrap_or_else(|| Teller::new(edge, self, reader, Remarks::default()));
        let response = teller.tell(edge, Item::from(Arc::clone(line))).await?;
        let nobody = self.listed.as_ref().is_some_and(|(key, _)| key.nobody);
        let same = response.errors.is_empty() && !teller.looks.passing() && (nobody || !teller.looks.personal());
        *kept = Some(teller);
        drop(kept);
        if same { serde_json::to_string(&response).ok().map(Arc::from) } else { None }
    }
}

/// An operation that is ready to answer one line after the other.
struct Teller {
    responses: BoxStream<'static, Response>,
    telling: Telling,
    looks: Looks,
}

impl Teller {
    fn new(edge: &Edge, shape: &Shape, reader: &Reader, remarks: Remarks) -> Self {
        let telling = Telling::default();
        let session = reader.session(edge, remarks).with_delivery(Delivery::Telling(telling.clone()));
        let looks = session.looks();
        Self { responses: edge.schema.execute_stream(shape.question.request(session)), telling, looks }
    }

    async fn tell(&mut self, edge: &Edge, item: Item) -> Option<Response> {
        edge.app.metrics().event_answered();
        self.looks.forget();
        self.telling.put(item);
        self.responses.next().await
    }
}

/// Who follows.
pub(super) struct Reader {
    pub(super) caller: Caller,
    pub(super) request_id: String,
    pub(super) budget: Option<Budget>,
}

impl Reader {
    fn session(&self, edge: &Edge, remarks: Remarks) -> Session {
        let session = Session::new(edge.app.clone(), self.caller.clone(), self.request_id.clone());
        session.with_budget(self.budget).with_remarks(remarks)
    }
}

/// An event as it is told.
pub(super) struct Told {
    /// Its place in the log; not there when a failure is told.
    pub(super) cursor: Option<Cursor>,
    /// The response as JSON.
    pub(super) text: Arc<str>,
}

/// Why a subscription has no more to tell.
pub(super) enum Stopped {
    /// There will be no stream.
    Refused(Vec<ServerError>),
    /// We failed.
    Failed(Fault),
}

/// A subscription under way.
pub(super) struct Following {
    shape: Arc<Shape>,
    reader: Reader,
    /// Until it is opened, what this subscriber asked for: the place to begin behind is its own.
    question: Option<Question>,
    /// `None` before it is opened.
    lines: Option<Lines>,
    /// Answers what depends on who asks, once there was such a thing.
    own: Option<Teller>,
    started: bool,
    counted: Counted,
    trail: Trail,
}

impl Following {
    pub(super) fn new(edge: &Edge, operation: Operation, reader: Reader, trail: Trail) -> Self {
        let key = Key::of(&operation, &reader.caller);
        let Operation { document, name, variables, .. } = operation;
        let question = Question { document, operation: name, variables };
        let shape = edge.shapes.of(key, &question);
        let counted = Counted::new(&edge.app);
        Self { shape, reader, question: Some(question), lines: None, own: None, started: false, counted, trail }
    }

    /// The next event; an error when the subscription ends other than by its end.
    pub(super) async fn next(&mut self, edge: &Edge) -> Option<Result<Told, Stopped>> {
        let span = self.trail.span().clone();
        self.step(edge).instrument(span).await
    }

    async fn step(&mut self, edge: &Edge) -> Option<Result<Told, Stopped>> {
        // What is boxed here and below is large and soon over; whoever waits for the next line would carry it.
        if let Some(question) = self.question.take() {
            match Box::pin(self.open(edge, &question)).await {
                Ok(lines) => self.lines = Some(lines),
                Err(errors) => return Some(Err(Stopped::Refused(errors))),
            }
        }
        let item = self.lines.as_mut()?.next().await?;
        let cursor = item.line().map(|line| line.cursor);
        Some(self.tell(edge, item).await.map(|text| Told { cursor, text }))
    }

    /// Makes the checks of this subscriber.
    async fn open(&mut self, edge: &Edge, question: &Question) -> Result<Lines, Vec<ServerError>> {
        let opening = Opening::default();
        let session = self.reader.session(edge, self.trail.remarks());
        let session = session.with_delivery(Delivery::Opening(opening.clone()));
        match edge.schema.execute_stream(question.request(session)).next().await {
            None => Ok(opening.take().unwrap_or_else(|| stream::empty().boxed())),
            Some(response) => Err(self.refused(response)),
        }
    }

    fn refused(&mut self, mut response: Response) -> Vec<ServerError> {
        complete(&mut response, &self.reader.request_id);
        self.counted.went = went(&response);
        self.trail.answered(&response, self.counted.went.value());
        response.errors
    }

    async fn tell(&mut self, edge: &Edge, item: Item) -> Result<Arc<str>, Stopped> {
        if let Some(line) = item.line()
            && let Some(answer) = self.shape.answer(line)
        {
            let told = match answer.get() {
                Some(told) => told,
                None => Box::pin(answer.get_or_init(|| self.shape.tell(edge, &self.reader, line))).await,
            };
            if let Some(text) = told {
                self.started = true;
                return Ok(Arc::clone(text));
            }
        }
        Box::pin(self.tell_alone(edge, item)).await
    }

    /// The answer for this subscriber.
    async fn tell_alone(&mut self, edge: &Edge, item: Item) -> Result<Arc<str>, Stopped> {
        let Self { own, shape, reader, trail, .. } = self;
        let own = own.get_or_insert_with(|| Teller::new(edge, shape, reader, trail.remarks()));
        let Some(mut response) = own.tell(edge, item).await else {
            return Err(Stopped::Failed(Fault::internal("an event was not answered")));
        };
        if !self.started && did_not_start(&response) {
            return Err(Stopped::Refused(self.refused(response)));
        }
        complete(&mut response, &self.reader.request_id);
        self.started = true;
        serde_json::to_string(&response).map(Arc::from).map_err(|error| Stopped::Failed(Fault::internal(error)))
    }
}
