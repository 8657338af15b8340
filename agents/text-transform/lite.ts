/*
 * text.transform in AssemblyScript, through the JSON interface: no WASI, no imports at all.
 *
 * Input: an object with the strings `text` and `operation`; trim, squeeze or reverse. Output: {"text": …}. What cannot be used
 * is answered by status 1 and {"error": …}.
 */

let result: ArrayBuffer = new ArrayBuffer(0);

export function alloc_memory(size: i32): usize {
    return heap.alloc(size);
}

export function dealloc_memory(at: usize, _size: i32): void {
    heap.free(at);
}

export function execute(at: usize, len: i32): i32 {
    const reader = new Reader(String.UTF8.decodeUnsafe(at, len));
    reader.readInput();
    let answer = "";
    if (reader.wrong.length == 0) {
        if (reader.operation == "trim") {
            answer = trimmed(reader.text);
        } else if (reader.operation == "squeeze") {
            answer = squeezed(trimmed(reader.text));
        } else if (reader.operation == "reverse") {
            answer = reversed(reader.text);
        } else {
            reader.wrong = "the operation must be trim, squeeze or reverse";
        }
    }
    const failed = reader.wrong.length > 0;
    const said = failed ? '{"error":' + quoted(reader.wrong) + "}" : '{"text":' + quoted(answer) + "}";
    result = String.UTF8.encode(said);
    return failed ? 1 : 0;
}

export function get_result_ptr(): usize {
    return changetype<usize>(result);
}

export function get_result_len(): i32 {
    return result.byteLength;
}

function isSpace(letter: i32): bool {
    return letter == 0x20 || letter == 0x09 || letter == 0x0a || letter == 0x0d;
}

function trimmed(text: string): string {
    let start = 0;
    let end = text.length;
    while (start < end && isSpace(text.charCodeAt(start))) start++;
    while (end > start && isSpace(text.charCodeAt(end - 1))) end--;
    return text.substring(start, end);
}

/* Every run of spaces becomes one space. */
function squeezed(text: string): string {
    const letters = new Array<i32>();
    for (let i = 0; i < text.length; i++) {
        const letter = text.charCodeAt(i);
        if (!isSpace(letter)) {
            letters.push(letter);
        } else if (!isSpace(text.charCodeAt(i - 1))) {
            letters.push(0x20);
        }
    }
    return String.fromCharCodes(letters);
}

/* By code points, so that the halves of a pair stay in their order. */
function reversed(text: string): string {
    const letters = new Array<i32>();
    for (let i = text.length - 1; i >= 0; i--) {
        const letter = text.charCodeAt(i);
        const before = i > 0 ? text.charCodeAt(i - 1) : 0;
        if ((letter & 0xfc00) == 0xdc00 && (before & 0xfc00) == 0xd800) {
            letters.push(before);
            i--;
        }
        letters.push(letter);
    }
    return String.fromCharCodes(letters);
}

const HEX: string = "0123456789abcdef";

function quoted(text: string): string {
    const letters = new Array<i32>();
    letters.push(0x22);
    for (let i = 0; i < text.length; i++) {
        const letter = text.charCodeAt(i);
        if (letter == 0x22 || letter == 0x5c) {
            letters.push(0x5c);
            letters.push(letter);
        } else if (letter < 0x20) {
            letters.push(0x5c);
            letters.push(0x75);
            letters.push(0x30);
            letters.push(0x30);
            letters.push(HEX.charCodeAt(letter >> 4));
            letters.push(HEX.charCodeAt(letter & 15));
        } else {
            letters.push(letter);
        }
    }
    letters.push(0x22);
    return String.fromCharCodes(letters);
}

/* Reads an object of strings, which is all the JSON that this agent takes. The market sends nothing that is not JSON. */
class Reader {
    text: string = "";
    operation: string = "";
    wrong: string = "";
    private at: i32 = 0;

    constructor(private source: string) {}

    readInput(): void {
        let texts = 0;
        let operations = 0;
        if (!this.takes(0x7b)) return this.refuse();
        if (!this.takes(0x7d)) {
            do {
                const name = this.readString();
                if (!this.takes(0x3a)) return this.refuse();
                const value = this.readString();
                if (this.wrong.length > 0) return;
                if (name == "text") {
                    this.text = value;
                    texts++;
                } else if (name == "operation") {
                    this.operation = value;
                    operations++;
                }
            } while (this.takes(0x2c));
            if (!this.takes(0x7d)) return this.refuse();
        }
        this.skipSpaces();
        if (texts != 1 || operations != 1 || this.at != this.source.length) this.refuse();
    }

    private refuse(): void {
        this.wrong = "the input must be an object with the strings text and operation";
    }

    private skipSpaces(): void {
        while (this.at < this.source.length && isSpace(this.source.charCodeAt(this.at))) this.at++;
    }

    private takes(letter: i32): bool {
        this.skipSpaces();
        if (this.at >= this.source.length || this.source.charCodeAt(this.at) != letter) return false;
        this.at++;
        return true;
    }

    private readString(): string {
        const letters = new Array<i32>();
        if (!this.takes(0x22)) {
            this.refuse();
            return "";
        }
        while (this.at < this.source.length) {
            const letter = this.source.charCodeAt(this.at++);
            if (letter == 0x22) return String.fromCharCodes(letters);
            letters.push(letter == 0x5c ? this.readEscape() : letter);
        }
        this.refuse();
        return "";
    }

    private readEscape(): i32 {
        if (this.at >= this.source.length) return 0;
        const letter = this.source.charCodeAt(this.at++);
        if (letter == 0x62) return 0x08;
        if (letter == 0x66) return 0x0c;
        if (letter == 0x6e) return 0x0a;
        if (letter == 0x72) return 0x0d;
        if (letter == 0x74) return 0x09;
        if (letter != 0x75) return letter;
        let value = 0;
        for (let i = 0; i < 4 && this.at < this.source.length; i++) {
            const digit = this.source.charCodeAt(this.at++);
            value = (value << 4) | (digit <= 0x39 ? digit - 0x30 : (digit | 0x20) - 0x57);
        }
        return value;
    }
}
