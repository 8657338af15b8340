/*
 * text.keywords: what an English text is about.
 *
 * Input: a JSON string, or an object {text, limit} with a limit from 1 to 100 (10 if absent). Without PRO the keywords are
 * the most frequent words that carry meaning. With PRO they are phrases: runs of such words without a mark between them,
 * scored in the manner of RAKE (Rose and others, 2010): a word is worth the ratio of its neighbours to its occurrences, a
 * phrase the sum over its words, times how often the phrase occurs.
 */
#include "../common/agent.h"
#include "../common/words.h"

#include <stdlib.h>
#include <string.h>

#define MAX_PHRASE 4

/* Words that hold English together and say nothing of the subject; in order, for the search. */
static const char *const EMPTY[] = {
    "a", "about", "above", "after", "again", "against", "all", "almost", "also", "although", "always", "am", "among", "an",
    "and", "another", "any", "are", "aren't", "as", "at", "be", "because", "been", "before", "being", "below", "between",
    "both", "but", "by", "can", "can't", "cannot", "could", "did", "do", "does", "doesn't", "doing", "don't", "down",
    "during", "each", "either", "else", "even", "ever", "every", "few", "for", "from", "further", "get", "gets", "had",
    "has", "have", "having", "he", "her", "here", "hers", "him", "his", "how", "however", "i", "if", "in", "into", "is",
    "isn't", "it", "it's", "its", "itself", "just", "less", "let", "like", "made", "make", "makes", "many", "may", "me",
    "might", "mine", "more", "most", "much", "must", "my", "neither", "never", "no", "nor", "not", "now", "of", "off",
    "often", "on", "once", "one", "only", "or", "other", "others", "our", "ours", "out", "over", "own", "per", "quite",
    "rather", "same", "shall", "she", "should", "since", "so", "some", "still", "such", "than", "that", "that's", "the",
    "their", "theirs", "them", "then", "there", "these", "they", "this", "those", "though", "through", "thus", "to", "too",
    "two", "under", "until", "up", "upon", "us", "use", "used", "uses", "using", "very", "was", "we", "were", "what",
    "when", "where", "whether", "which", "while", "who", "whom", "whose", "why", "will", "with", "within", "without",
    "won't", "would", "yet", "you", "your", "yours",
};

static bool empty(struct slice word) {
    size_t low = 0;
    size_t high = sizeof EMPTY / sizeof *EMPTY;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int sign = order(word, (struct slice){EMPTY[middle], strlen(EMPTY[middle])});
        if (sign == 0) {
            return true;
        }
        if (sign < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    bool digits = true;
    for (size_t i = 0; i < word.len; i++) {
        digits &= word.at[i] >= '0' && word.at[i] <= '9';
    }
    return digits || letters(word) < 2;
}

static int by_weight(const void *a, const void *b) {
    const struct word *left = *(struct word *const *)a;
    const struct word *right = *(struct word *const *)b;
    if (left->weight != right->weight) {
        return left->weight > right->weight ? -1 : 1;
    }
    return by_count(a, b);
}

#if PRO

/* Enters a phrase and tells each of its words how many stand with it. */
static void enter(struct tally *words, struct tally *phrases, const struct slice *run, size_t len) {
    if (len == 0) {
        return;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < len; i++) {
        struct word *word = entry(words, run[i]);
        word->count++;
        word->weight += (double)len;
        bytes += run[i].len + 1;
    }
    char *text = take(bytes, 1);
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0) {
            text[at++] = ' ';
        }
        memcpy(text + at, run[i].at, run[i].len);
        at += run[i].len;
    }
    entry(phrases, (struct slice){text, at})->count++;
}

static struct tally find(struct slice text) {
    struct tally words = {0};
    struct tally phrases = {0};
    struct slice run[MAX_PHRASE];
    size_t len = 0;
    struct slice word;
    bool broken;
    for (size_t at = 0; next_word(text, &at, &word, &broken);) {
        bool skip = empty(word);
        if (broken || skip || len == MAX_PHRASE) {
            enter(&words, &phrases, run, len);
            len = 0;
        }
        if (!skip) {
            run[len++] = word;
        }
    }
    enter(&words, &phrases, run, len);

    struct word **all = entries(&phrases);
    for (size_t i = 0; i < phrases.used; i++) {
        double sum = 0;
        size_t start = 0;
        for (size_t end = 0; end <= all[i]->text.len; end++) {
            if (end == all[i]->text.len || all[i]->text.at[end] == ' ') {
                const struct word *part = entry(&words, (struct slice){all[i]->text.at + start, end - start});
                sum += part->weight / (double)part->count;
                start = end + 1;
            }
        }
        all[i]->weight = sum * (double)all[i]->count;
    }
    return phrases;
}

#else

static struct tally find(struct slice text) {
    struct tally words = {0};
    struct slice word;
    for (size_t at = 0; next_word(text, &at, &word, NULL);) {
        if (!empty(word)) {
            struct word *found = entry(&words, word);
            found->count++;
            found->weight += 1;
        }
    }
    return words;
}

#endif

int main(void) {
    const struct json *input = read_input();
    const struct json *given = input->kind == J_OBJECT ? member(input, "text") : input;
    if (given == NULL || given->kind != J_STRING) {
        fail("the input must be a string, or an object with a string named text");
    }
    size_t limit = 10;
    const struct json *wanted = member(input, "limit");
    if (wanted != NULL) {
        if (wanted->kind != J_NUMBER || !(wanted->number >= 1 && wanted->number <= 100)) {
            fail("the limit must be a number from 1 to 100");
        }
        limit = (size_t)wanted->number;
    }

    struct tally found = find(given->text);
    struct word **all = entries(&found);
    qsort(all, found.used, sizeof *all, by_weight);
    open_object();
    key("keywords");
    open_array();
    for (size_t i = 0; i < found.used && i < limit; i++) {
        open_object();
        key("keyword");
        put_string(all[i]->text);
        key("count");
        put_integer(all[i]->count);
        key("score");
        put_number(all[i]->weight);
        close_object();
    }
    close_array();
    close_object();
    finish();
    return 0;
}
