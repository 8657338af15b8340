/*
 * text.stats: measures a text.
 *
 * Input: a JSON string, or an object with the member `text`. With PRO everything is measured, without it only what one pass
 * over the bytes gives.
 */
#include "../common/agent.h"
#include "../common/words.h"

#include <stdlib.h>
#include <wctype.h>

static uint64_t count_lines(struct slice text) {
    uint64_t lines = 0;
    for (size_t i = 0; i < text.len; i++) {
        lines += text.at[i] == '\n';
    }
    return lines + (text.len > 0 && text.at[text.len - 1] != '\n');
}

#if PRO

static bool ends_sentence(uint32_t letter) {
    return letter == '.' || letter == '!' || letter == '?' || letter == 0x2026 || letter == 0x3002 || letter == 0xff01
        || letter == 0xff1f;
}

static bool closes(uint32_t letter) {
    return letter == '"' || letter == '\'' || letter == ')' || letter == ']' || letter == 0x201d || letter == 0x2019
        || letter == 0xbb;
}

/* A sentence ends at a mark that a space or the end of the text follows, so "3.14" and "a.b" end none. What follows the
 * last mark is a sentence if it has a letter or a digit; so is every other piece. */
static uint64_t count_sentences(struct slice text) {
    uint64_t sentences = 0;
    bool words = false;
    for (size_t at = 0; at < text.len;) {
        uint32_t letter = next_letter(text, &at);
        words |= iswalnum((wint_t)letter) != 0;
        if (!ends_sentence(letter)) {
            continue;
        }
        bool wide = letter >= 0x3000;
        size_t after = at;
        uint32_t follows = ' ';
        while (after < text.len) {
            follows = next_letter(text, &after);
            if (!ends_sentence(follows) && !closes(follows)) {
                break;
            }
            at = after;
            follows = ' ';
        }
        if (words && (wide || iswspace((wint_t)follows))) {
            sentences++;
            words = false;
        }
    }
    return sentences + words;
}

/* Paragraphs are parted by lines that hold nothing but spaces. */
static uint64_t count_paragraphs(struct slice text) {
    uint64_t paragraphs = 0;
    bool within = false;
    bool blank = true;
    for (size_t at = 0; at < text.len;) {
        uint32_t letter = next_letter(text, &at);
        if (letter == '\n') {
            within &= !blank;
            blank = true;
        } else if (!iswspace((wint_t)letter)) {
            paragraphs += !within;
            within = true;
            blank = false;
        }
    }
    return paragraphs;
}

#endif

int main(void) {
    const struct json *input = read_input();
    const struct json *given = input->kind == J_OBJECT ? member(input, "text") : input;
    if (given == NULL || given->kind != J_STRING) {
        fail("the input must be a string, or an object with a string named text");
    }
    struct slice text = given->text;

    uint64_t words = 0;
    struct slice word;
#if PRO
    struct tally tally = {0};
    uint64_t word_letters = 0;
    struct slice longest = {"", 0};
#endif
    for (size_t at = 0; next_word(text, &at, &word, NULL);) {
        words++;
#if PRO
        size_t length = letters(word);
        word_letters += length;
        if (length > letters(longest)) {
            longest = word;
        }
        entry(&tally, word)->count++;
#endif
    }

    open_object();
    key("characters");
    put_integer(letters(text));
    key("bytes");
    put_integer(text.len);
    key("words");
    put_integer(words);
    key("lines");
    put_integer(count_lines(text));
#if PRO
    uint64_t spaces = 0;
    for (size_t at = 0; at < text.len;) {
        spaces += iswspace((wint_t)next_letter(text, &at)) != 0;
    }
    uint64_t sentences = count_sentences(text);
    key("charactersWithoutSpaces");
    put_integer(letters(text) - spaces);
    key("sentences");
    put_integer(sentences);
    key("paragraphs");
    put_integer(count_paragraphs(text));
    key("uniqueWords");
    put_integer(tally.used);
    key("averageWordLength");
    put_number(words == 0 ? 0 : (double)word_letters / (double)words);
    key("averageSentenceLength");
    put_number(sentences == 0 ? 0 : (double)words / (double)sentences);
    key("longestWord");
    put_string(longest);
    key("readingSeconds"); /* at 240 words a minute, rounded up */
    put_integer((words + 3) / 4);
    key("mostCommonWords");
    open_array();
    struct word **all = entries(&tally);
    qsort(all, tally.used, sizeof *all, by_count);
    for (size_t i = 0; i < tally.used && i < 10; i++) {
        open_object();
        key("word");
        put_string(all[i]->text);
        key("count");
        put_integer(all[i]->count);
        close_object();
    }
    close_array();
#endif
    close_object();
    finish();
    return 0;
}
