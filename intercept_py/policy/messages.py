"""Every mistake of a policy author, one template each: lower case, one line, user input in backticks, the remedy.

`tests/mistakes` holds at least one small file for each of them; a test fails for a template without one.
"""

from __future__ import annotations

# Reading the file (`source`)
TOO_LARGE = "the file has {size} bytes, a {what} at most {limit}: split it, or check that this is the right file"
BYTE_ORDER_MARK = "the file starts with a byte order mark: save it as UTF-8 without one"
BINARY = "the file holds a NUL byte, so it is not text: give a YAML file in UTF-8"
NOT_UTF8 = "byte `{byte}` is not valid UTF-8: save the file as UTF-8"
HARMFUL_CHARACTER = (
    "character {name} is invisible or changes how text is read: remove it, or write `{escape}` in double quotes"
)
EMPTY_FILE = "the file holds no {what}: start with `{start}:`"
SEVERAL_DOCUMENTS = "a second document starts here: a {what} is one document, delete the `---` or split the file"
DIRECTIVE = "directives (`%YAML`, `%TAG`) are not supported: delete the line"
TAG = "tags are not supported: remove `{tag}`"
TAB = "a tab cannot indent YAML: use spaces"
BARE_STAR = 'a bare `*` starts an alias in YAML: quote it, such as `"*"`'
RESERVED_START = "`{character}` cannot start a plain value in YAML: quote the value"
NESTED_COLON = "`: ` is not allowed here: quote text that holds it, or check the indentation"
SYNTAX = "not valid YAML: {detail}"
UNFINISHED = "not valid YAML: {detail}, {context} that starts on line {line}"
TOO_DEEP = "nested deeper than {limit} levels"
DUPLICATE_KEY = "`{key}` was given on line {line} already: keep one"
KEY_NOT_TEXT = "key `{text}` is not text to every YAML reader: quote it"
MERGE_KEY = "merge keys (`<<`) are not supported: repeat the fields, or give the whole value by an alias"
ALIAS_KEY = "alias `*{name}` cannot be a key: quote it if it is a glob, or write the key"
UNDEFINED_ALIAS = "alias `*{name}` stands for nothing: quote it if it is a glob, or define `&{name}` before it"
RECURSIVE_ALIAS = "alias `*{name}` is part of the value it stands for: write the value"
DUPLICATE_ANCHOR = "anchor `&{name}` is defined twice: rename one"
ALIAS_BOMB = "the aliases of this file stand for more than {limit} values: write fewer"
ODD_BOOLEAN = "`{text}` is a boolean to some YAML readers and text to others: write `true` or `false`, or quote it"
ODD_NULL = "`{text}` is null to some YAML readers and text to others: write `null`, or quote it"
ODD_NUMBER = "`{text}` is a different number to different YAML readers: write a plain decimal number, or quote it"
ODD_DATE = "`{text}` is a date to some YAML readers: quote it"
ODD_SIGN = "`{text}` has a special meaning in YAML: quote it"
NOT_FINITE = "`{text}` is not a number in JSON: write a finite number, or quote it"
INTEGER_RANGE = "`{text}` is beyond {limit}, up to which JSON numbers are exact: write a smaller one, or quote it"
INEXACT_NUMBER = "`{text}` cannot be kept exactly as a JSON number: write fewer digits, or quote it"

# All of them (`tree`)
LEFT_OUT = "{count} more problems are not listed: correct these first"

# Fields and their types (`section`)
NOT_A_MAPPING = "{what} is a mapping of fields, not {got}"
NULL_ENTRY = "the entry of `{name}` has no value: write `{{}}` to list the tool without rules"
WRONG_TYPE = "`{name}` takes {values}, not {got}"
WRONG_ITEM = "`{name}` lists text, not {got}"
UNKNOWN_CHOICE = "unknown `{name}` value `{text}`: write {values}"
UNKNOWN_CHOICE_GUESS = "unknown `{name}` value `{text}`: did you mean `{guess}`?"
UNKNOWN_FIELD = "unknown field `{name}`: {what} has {names}"
UNKNOWN_FIELD_GUESS = "unknown field `{name}`: did you mean `{guess}`?"
MISPLACED_FIELD = "`{name}` is no field of {what}: it belongs in {where}"
MISSING_FIELD = "`{name}` is missing: it takes {values}"
EMPTY_LIST = "`{name}` is an empty list: delete it, or list something"
BLANK = "`{name}` is blank: write something, or delete it"
BLANK_NAME = "a name cannot be blank: write one, or delete this"
PADDED = "`{text}` has blanks around it: remove them"
CONTROL_CHARACTERS = "`{text}` holds characters that do not print: remove them"
TOO_LONG = "`{name}` has {size} characters, at most {limit} are kept: shorten it"
REPEATED = "`{text}` is listed twice: keep one"

# The policy and its entries (`loader`)
VERSION_UNQUOTED = 'the version is text: write `version: "1"`'
RESERVED_ENTRY = '`_global` stands for `"*"` in state paths and cannot be a tool: name the entry `"*"`'
BAD_METHOD = "`{name}` takes `allow`, `deny` or `{{action: deny, reason: ...}}`, not {got}"
METHOD_LIFECYCLE = "`{name}` keeps the session alive and cannot be governed: delete the line"
METHOD_TOOLS_CALL = "`tools/call` is governed by `tools` and `default`: delete the line, or write `default: deny`"
METHOD_ALLOW_REASON = "only a denial has a reason: delete `reason`, or write `action: deny`"

# Rules (`compile`)
ENFORCE_IN_SHADOW = "the policy's `mode: shadow` covers every rule, this one too: delete one of the two"
TWO_REASONS = "`reason` and `on_deny` mean the same: keep one"
REQUIRES_NOTHING = (
    "the rule requires nothing: add `conditions`, `validate`, `rate_limit` or `state`, or write `action: allow`"
)
GUARDS_NOTHING = (
    "the rule requires nothing, so its `when` has no effect: to require it, write `conditions` instead of `when`"
)
DENY_CONDITIONS = "a deny rule has no requirements: write `when` instead of `conditions` to say when it denies"
DENY_REQUIREMENT = "a deny rule has no requirements: delete `{name}`, or `action: deny`"
APPROVAL_REQUIREMENT = "a rule that asks for approval has no requirements: move `{name}` to a rule of its own"
BAD_OPERAND = "operator `{op}`: {detail}"
REFUSED = "{detail}"
STATE_IN_GUARD = "counters cannot decide whether a rule applies: move this condition to `conditions` of an allow rule"
STATE_OPERATOR = "a counter is limited by `lt` or `lte`, not by `{op}`"
STATE_LIMIT = "a counter is limited by a number of at least 0, not by {got}"
UNKNOWN_COUNTER = (
    "no `state` block feeds `{path}`: add `state: {{counter: {counter}, window: day}}` to a rule of `{entry}`"
)
UNKNOWN_COUNTER_GUESS = "no `state` block feeds `{path}`: did you mean `{guess}`?"
VALIDATES_NOTHING = (
    "`validate` checks nothing: write `required_args: true`, `schema: true` or `unknown_args: deny`, or delete it"
)
BAD_RATE = (
    "`{text}` is not a rate: write a positive number and second, minute, hour, day, week or month, such as `5/hour`"
)
NOT_POSITIVE = "`{name}` is {text}, but must be at least 1: to forbid every call, write `action: deny`"
BAD_WINDOW = "`{text}` is not a window: write seconds (`60`), a span (`90s`, `5m`, `2h`, `1d`), or `second` to `month`"
WINDOW_RANGE = "`{text}` is out of range: a window lasts from 1 second to 366 days"
BAD_SCOPE = (
    "`{text}` is not a scope: write `session`, `principal`, `tool`, `global` or an argument such as `args.project`"
)
GLOBAL_SCOPE = (
    "`global` is one budget for all calls and cannot be split further: list the others without it, or `global` alone"
)
REPEATED_LIMIT = (
    "`{entry}` has a limit with this window and scope already, in rule `{rule}`: they would share one budget, keep one"
)
BAD_COUNTER = "counter `{text}` cannot stand in a path: use letters, digits, `_` and `-`, and start with a letter"
REPEATED_COUNTER = "`{entry}` has the counter `{counter}` already, in rule `{rule}`: rename one"
UNLIMITED_COUNTER = (
    "nothing limits counter `{counter}`: add the condition `{{path: {path}, op: lte, value: 100}}` to this rule"
)
TWO_INCREMENTS = "`increment` and `increment_from` exclude each other: keep one"
BAD_INCREMENT = "`increment` is {text}, but must be above 0: delete it to count by 1"
NOT_AN_ARGUMENT = "`{text}` is not an argument: write a path such as `args.amount`"
