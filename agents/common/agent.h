/*
 * What all sample agents share: one JSON value in, one JSON value out, and nothing else from the world outside.
 *
 * Memory is taken and never given back: an agent lives for one task, and its whole memory goes when it ends.
 */
#ifndef AGENT_H
#define AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Nested arrays and objects that are read or written; deeper ones are refused, so that no input can use up the stack. */
#define MAX_DEPTH 64

/* Bytes that are not necessarily text and do not end in a zero. */
struct slice {
    const char *at;
    size_t len;
};

/* Ends the agent with exit code 1; the reason becomes the log of the task. */
_Noreturn void fail(const char *reason);
/* The same, with a name from the input at the end of the reason. */
_Noreturn void fail_about(const char *reason, struct slice name);

/* Memory for `count` things of `size` bytes, zeroed. Fails the agent instead of giving nothing. */
void *take(size_t count, size_t size);

bool same(struct slice a, struct slice b);
bool is(struct slice a, const char *text);
/* Orders by bytes, which for UTF-8 is the order of code points. */
int order(struct slice a, struct slice b);

/* The code point at `*at`, which moves behind it. The text must be valid UTF-8, as every string of the reader is. */
uint32_t next_letter(struct slice text, size_t *at);
size_t letters(struct slice text);

/* The value of a number in the form of JSON, which the caller has checked; infinite if it is too large. */
double decimal(struct slice text);

enum kind { J_NULL, J_BOOLEAN, J_NUMBER, J_STRING, J_ARRAY, J_OBJECT };

struct json {
    enum kind kind;
    bool truth;
    double number;
    struct slice text;   /* a string, decoded */
    struct slice name;   /* the key, if this is a member of an object */
    size_t count;        /* elements or members */
    struct json *first;  /* the first of them */
    struct json *next;   /* the next beside this one */
};

/* Reads standard input as one JSON value, to its end; anything else fails the agent. */
const struct json *read_input(void);
/* A member of an object, or null. Of two members with one name the later one counts. */
const struct json *member(const struct json *object, const char *name);
/* Equal as JSON: numbers by value, objects without regard to order. */
bool equal(const struct json *a, const struct json *b);
/* "null", "boolean", "number", … */
const char *kind_name(enum kind kind);

/* Writes the output; commas and colons come by themselves. */
void open_object(void);
void open_array(void);
void close_object(void);
void close_array(void);
void key(const char *name);
void put_string(struct slice text);
void put_text(const char *text);
void put_integer(uint64_t number);
/* At most six decimals, or 15 digits and an exponent from 1e15 on; without zeros at the end; the same on every machine. */
void put_number(double number);
void put_boolean(bool truth);
void put_null(void);
/* Sends what was written. To be called once, at the end. */
void finish(void);

#endif
