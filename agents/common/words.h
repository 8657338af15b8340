/* Words of a text: how they are found, and how often each occurs. */
#ifndef WORDS_H
#define WORDS_H

#include "agent.h"

/*
 * Moves `*at` to the next word and behind it, and gives it in lower case. A word is a run of letters and digits of any
 * script; an apostrophe or a hyphen belongs to it between two of them. `*broken`, if wanted, says that something other than
 * spaces stood before the word, so that it cannot belong to one phrase with the word before. Gives false at the end.
 */
bool next_word(struct slice text, size_t *at, struct slice *word, bool *broken);

struct word {
    struct slice text;
    uint64_t count;
    double weight; /* for the caller's use */
};

struct tally {
    struct word **slots;
    size_t room;
    size_t used;
};

/* The entry of a word, new with count 0 if it was not there. The entry stays where it is. */
struct word *entry(struct tally *tally, struct slice text);
/* All entries, in no particular order. */
struct word **entries(const struct tally *tally);
/* For qsort over what `entries` gives: most frequent first, then by code points. */
int by_count(const void *a, const void *b);

#endif
