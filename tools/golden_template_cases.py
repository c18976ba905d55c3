"""What golden_templates.py has Jinja render: sets of variables, chat templates of families, expressions and statements.

The templates of families are written for this test in the style of those the families come with; they are not the originals.
"""
CHAT = {"messages": [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hi <b>&'\"\n"},
                     {"role": "assistant", "content": "  Hello!"}, {"role": "user", "content": "日本 é 😀?"}],
        "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "tools": None, "documents": None}
TOOLS = dict(CHAT, tools=[{"type": "function", "function": {"name": "get_time", "description": "Time in a \"zone\"", "parameters": {
    "type": "object", "properties": {"zone": {"type": "string", "enum": ["utc", "é"]}, "n": {"type": "integer"}}, "required": []}}}])
DATA = {"a": 7, "b": -3, "f": 2.5, "s": "Hello, World", "e": "", "l": [3, 1, 2], "m": ["b", "A", "c", "a"], "n": None, "t": True,
        "d": {"y": 1, "x": [1, {"k": "v"}], "Z": None}, "u": "straße ÉCOLE naïve 日本", "w": "  \t padded \n ",
        "p": [{"role": "user", "n": 2, "q": {"z": 1}}, {"role": "system", "n": 1, "q": {"z": 0}}, {"role": "user", "n": 3, "q": {}}]}

# Chat templates in the style of well-known families, written for this test.
FAMILIES = [
    # Llama 3: header blocks, trimmed content, bos once
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + "
    "content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>"
    "\\n\\n' }}{% endif %}",
    # Llama 3.1: system taken off the front, date, tools as indented JSON
    """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You can call these functions:\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("no calls here") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    # Qwen 2.5: tools, default system prompt
    """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    # Mistral: roles must alternate, system goes into the first user turn
    """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported") }}
    {%- endif %}
{%- endfor %}
{{ user_messages|length }}/{{ (messages|last).content }}""",
    # Gemma: refuses system, renames the assistant
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0].content | trim + '\\n\\n' %}{% set msgs = "
    "messages[1:] %}{% else %}{% set first = '' %}{% set msgs = messages %}{% endif %}{% for message in msgs %}{% if (message['role'] "
    "== 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if (message['role'] == "
    "'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + "
    "(first if loop.first else '') }}{% if message['content'] is string %}{{ message['content'] | trim }}{% elif message['content'] "
    "is iterable %}{% for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}"
    "{% else %}{{ raise_exception('bad content') }}{% endif %}{{ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{'<start_of_turn>model\\n'}}{% endif %}",
    # Phi 3
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\\n' + message['content'] + "
    "'<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == "
    "'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
    # Llama 2: the system message inside the first turn
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if "
    "(message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if "
    "loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
    "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + "
    "'[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}",
    # SmolLM2: a system message of its own
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful AI "
    "assistant named SmolLM<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    # Qwen 3: reasoning of the last turns is kept, an empty one where thinking is switched off
    """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    # reasoning models: what is before the last </think> is cut from earlier turns
    """{%- set ns = namespace(last=-1, multi=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.last < 0 and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
{{ loop.index0 > ns.last }} {{ message.role }}: {{ content.rstrip() }}
{% endfor %}
{%- generation %}x{{ ns.last }}{% endgeneration %}
""",
    # macros over tool descriptions
    """{%- macro type_of(p) -%}
    {%- if p.type == "string" and p.enum %}{{ p.enum|join(" | ") }}
    {%- elif p.type is string %}{{ p.type|upper }}
    {%- else %}any{% endif %}
{%- endmacro -%}
{%- macro describe(tool, level=1) %}
{{ '#' * level }} {{ tool.name }}: {{ tool.description|default('none')|replace('"', "'") }}
{% for name, p in tool.parameters.properties.items() %}
{{ '  ' * level }}- {{ name }} ({{ type_of(p) }}{{ ', required' if name in tool.parameters.required }})
{% endfor %}
{% for name, p in tool.parameters.properties|dictsort %}{{ name }}={{ p.type|capitalize }}{{ "; " if not loop.last }}{% endfor %}
{% endmacro %}
{% if tools %}{% for tool in tools %}{{ describe(tool.function, level=2) }}{% endfor %}{% endif %}
""",
]

EXPRESSIONS = """
1 + 2 * 3 - 4 / 2
7 // 2, -7 // 2, 7 % 3, -7 % 3, 7 % -3, 7.5 // 2, -7.5 % 2
2 ** 10, 2 ** -1, 2 ** 3 ** 2, -2 ** 2
1 ~ 2 + 3 ~ 'x'
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'b']
1.0, 1e20, 1e16, 123456789012345680.0, 1e-5, 0.0001, 100.0, 2.5e3, 1/3, 0.1+0.2, -0.0
10 / 2, 3 * 1.5, 1_000, 0x1f, 0o17, 0b101
true, false, none, True, False, None
'it''s', "q\\"q", 'a\\n\\tb\\\\', '\\u00e9\\x41\\101\\q'
[1, 'a', "it's", none, [2], {'k': 1.5}], (), (1,), (1, 2), {}
{'a': {'b': {'c': 1}}}.a.b.c, {'a': 1}['a'], {1: 'x'}[1], {'a': 1, 'a': 2}
{'a': {'b': 1}}
a if a > 5 else b, 'x' if false, (a if e else s) ~ '!'
1 < 2 < 3, 1 < 3 < 2, 1 == 1.0, 'a' < 'b', [1, 2] < [1, 3], true == 1, '1' == 1, none == false
3 in l, 4 not in l, 'ell' in s, 'k' in d, 'x' in d, 'y' not in d, '' in e
not a, not e, not not s, not 1 == 2
a and b, e and a, e or 'dflt', n or e or 0, a or b
l[0], l[-1], l[9], s[1], s[-1], u[3], u[-1], l['0']
l[1:], l[:-1], l[::-1], l[::2], l[5:], l[-100:2], s[7:], s[::-1], u[4:6], s[-5:-1], l[2:0:-1], (1,2,3)[1:]
d.y, d['y'], d.nope, d.x[1].k, d.x.0, d.Z
l|length, s|length, u|length, d|length, e|count, nope|length
s|upper, s|lower, s|title, s|capitalize, 'foo-bar (baz) qux_x it\\'s'|title, u|upper, u|lower, 'éa ßb'|title
s.upper(), s.lower(), s.title(), u.capitalize(), "it's a-b_c 3d".title()
w|trim, '<' ~ w.strip() ~ '>', '<' ~ w.lstrip() ~ '>', '<' ~ w.rstrip() ~ '>', 'xxaxx'.strip('x'), 'xyaxy'|trim('xy')
s.split(', '), 'a,b,,c'.split(','), ' a  b '.split(), 'a b c'.split(' ', 1), 'a b  c'.split(none, 1), 'a.b.c'.rsplit('.', 1), 'a\\nb\\r\\nc'.splitlines()
s.startswith('Hell'), s.endswith('x'), s.startswith(('x', 'H')), s.find('o'), s.rfind('o'), s.find('zz'), u.find('É'), s.count('l')
s.replace('l', 'L'), s.replace('l', 'L', 1), s|replace('o', '0'), 'aaa'|replace('a', 'b', 2), 'ab'.replace('', '-')
'-'.join(m), m|join, m|join(', '), l|join('+'), p|join(',', attribute='role'), 'abc'|join('.')
'abc'.isdigit(), '12'.isdigit(), 'ab'.isalpha(), ' '.isspace(), 'AB'.isupper(), 'ab'.islower(), 'xab'.removeprefix('x'), 'abx'.removesuffix('x')
l|first, l|last, s|first, s|last, []|first, l|min, l|max, m|min, m|max, []|max
l|sort, l|sort(reverse=true), m|sort, m|sort(case_sensitive=true), p|sort(attribute='n')|map(attribute='n')|list
d|dictsort, d.items()|list, d.keys()|list, d.values()|list, d|list, d|items|list
d.get('y'), d.get('nope'), d.get('nope', 5), d.items()|length
[1, 2, 1, 'a', 'A', 'b']|unique|list, 'abc'|reverse, l|reverse|list, 'abc'|list
p|map(attribute='role')|list, p|map(attribute='q.z')|list, p|map(attribute='q.z', default='-')|list, m|map('upper')|list, l|map('string')|join
p|selectattr('role', 'equalto', 'user')|map(attribute='n')|list, p|rejectattr('role', 'eq', 'user')|list|length, p|selectattr('q.z')|list|length
l|select('odd')|list, l|reject('odd')|list, l|select('gt', 1)|list, [0, 1, '', 'a', none]|select|list, [1, 'a', none]|select('string')|list
nope|default('x'), e|default('x'), e|default('x', true), n|default('x'), n|d('y', boolean=true), nope|default
'42'|int, ' -7 '|int, 'x'|int, 'x'|int(5), '3.9'|int, 3.9|int, true|int, n|int, 'ff'|int(0, 16), '1.5'|float, 'x'|float, 3|float, '1e3'|float
3.7|round, 2.5|round, 3.14159|round(2), 7|round, 3.2|round(0, 'ceil'), 3.7|round(method='floor'), -5|abs, -5.5|abs, l|sum, p|sum(attribute='n')
-a|abs, (-a)|abs, a|string|length, -f, +a, a - -b
d|tojson, l|tojson, s|tojson, n|tojson, f|tojson, '"\\\\\\n\\t\\u0001é/'|tojson, {}|tojson, []|tojson
d|tojson(indent=2)
d|tojson(indent=0), d|tojson(sort_keys=true, separators=(',', ':'))
'a\\nb\\n\\nc'|indent, 'a\\nb'|indent(2, true), 'a\\n\\nb'|indent(2, blank=true), 'a\\nb'|indent('> '), 'a\\n'|indent
'<&>"\\''|e ~ '', ('<b>'|safe)|length, 5|string ~ 5
a is defined, nope is defined, nope is undefined, n is none, n is defined, s is string, d is mapping, l is iterable, s is iterable, a is iterable
l is sequence, s is sequence, d is sequence, a is sequence, a is number, f is number, t is number, a is integer, t is integer, f is float, t is boolean, a is boolean
t is true, t is false, 1 is true, a is odd, a is even, a is divisibleby 7, a is divisibleby(2), a is eq 7, a is ne 7, a is gt 5, a is lt 5, a is ge 7, a is le 7
a is equalto 7, 'x' is in 'xyz', 3 is in l, 4 is not in l, n is sameas none, s is not none, 'AB' is upper, 'ab' is lower, range is callable
a is not defined or s is string and not n
range(3)|list, range(1, 4)|list, range(5, 0, -2)|list, range(0)|list
dict(a=1, b='x'), dict({'q': 1}, r=2), dict([('k', 'v')])
namespace(x=1).x, namespace().y, [1] + [2], 'ab' * 3, 2 * [1, 2], 'a' + 'b', (1,) + (2,)
l == [3, 1, 2], d == d, {'a': 1} == {'a': 1.0}, (1,) == [1]
nope, nope ~ 'x', nope == nope2, nope == none, nope|trim, nope|upper, nope in l
[l, d, n]|string, [1.0, -0.5]|string, ['\\n', 'é', '\\\\']|string
'%d' is string, 'a' 'b' "c"
messages|default([])|length, loop is defined
not nope, nope or 'z', (nope if false else 1), nope|first is defined
'x'.nope is defined, a.nope is defined, l.nope is defined, s['upper'](), d['items']()|length, {'items': 5}.items is callable, {'items': 5}['items']
'ab'|list|last, 'İıſKé'|length, '😀é'|reverse, '😀é'[0], '日本'|upper
"a" if 1 else "b" if 0 else "c", ("x" if 0 else "y" if 0)|length
"hello world foo"|capitalize|replace("w", "W")|length * 2 + 1
''.join(['a','b'])|upper ~ 'c' in ['ABc']
'{}x{}'.format(1, 'é'), '{0}{1}{0}'.format('a', n), '{a}-{}'.format(l, a=2), '{{}}{}'.format(f), '<{}>'.format('x')|length
{'é': '日😀', 'a': [1.5, '\\n']}|tojson(ensure_ascii=true), 'é'|tojson(ensure_ascii=false), '\\x7f'|tojson(true)
n|select('string')|list, nope|map('upper')|list, n|selectattr('x')|list, 0|reject('odd')|list, ''|map('upper')|list, n|rejectattr('q')|list|length
""".strip().split("\n")

STATEMENTS = [
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ x }} {% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }}{{ loop.previtem is defined }} {% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}{% for x in nope %}a{% else %}none{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {% else %}none{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for (k, v) in d|dictsort %}{{ k }}{% endfor %}",
    "{% for a in [1, 2] %}{% for b in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}{{ a }}",
    "{% for c in 'aé日' %}[{{ c }}]{% endfor %}{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if loop.index == 2 %}{% break %}{% endif %}{% endfor %}",
    "{% set x = 1 %}{% for i in l %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in l %}{% if i == 3 %}{% set y = 5 %}{% endif %}{{ y is defined }}{% endfor %}{{ y is defined }}",
    "{% set ns = namespace(n=0, found=false) %}{% for i in l %}{% set ns.n = ns.n + i %}{% if i == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ ns.found }}{{ ns.nope is defined }}",
    "{% if a > 10 %}1{% elif a > 5 %}2{% elif true %}3{% else %}4{% endif %}{% if e %}x{% endif %}{% if n %}x{% else %}y{% endif %}",
    "{% if true %}{% set q = 3 %}{% endif %}{{ q }}{% set x, y = 1, 2 %}{{ x }}{{ y }}{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ a }}b{% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]",
    "{% macro f(x, y=2, z=x) %}{{ x }}-{{ y }}-{{ z }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, z=9) }}{{ f() }}{{ f(y=1, x=4) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}{{ f(2)|length }}",
    "{% macro box(t) %}<{{ t }}>{{ caller() }}</{{ t }}>{% endmacro %}{% call box('b') %}in {{ a }}{% endcall %}",
    "{% macro rows(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) rows(l) %}{{ i }}:{{ x }} {% endcall %}",
    "{% set g = 'top' %}{% macro f() %}{{ g }}{% endmacro %}{{ f() }}{% set g = 'new' %}{{ f() }}",
    "{% macro f() %}{% set inner = 1 %}{{ inner }}{% endmacro %}{{ f() }}{{ inner is defined }}",
    "{% for i in [1,2] %}{% macro f() %}m{{ i }}{% endmacro %}{{ f() }}{% endfor %}",
    "{% generation %}{% set z = 1 %}{{ z }}{% endgeneration %}{{ z is defined }}",
    "{# comment {{ x }} {% if %} #}a{#- b -#} c {# d +#}\n{# e #}\nf",
    "{% raw %}{{ x }} {% if %}{# c #}{% endraw %}|{%- raw -%}  {{ y }}  {%- endraw -%}  |\n{% raw %}\n a {% endraw %}\n b",
    "a\n  {% if true %}\n  b\n  {% endif %}\n  c\n", "a  {%- if true -%}  b  {%- endif -%}  c", "{%- if true +%}\n b{% endif %}", "a\n  {%+ if true %}b{% endif %}\n",
    "  {{ a }}\n  {{- b -}}  \n  x  {{ 1 }}\n\n", "{{ a }}\n", "{{ a }}\n\n", "\n\n  {% if true %}x{% endif %}\n\n", "x {# c #}\n y", "  {# c #}  \n y",
    "a\r\nb{% if true %}\r\nc{% endif %}\rd", "{% if true %}  \n  x{% endif %}", " {% set x = 1 %} {% set y = 2 %} {{ x }}", "\t{% if 1 %}\t\n\tx\n\t{%- endif %}\n",
    "{%if 1%}a{%endif%}{{1}}{{-1}}{{ - 1 }}{{ 1-}}", "{%- for x in l -%}\n {{ x }} \n{%- endfor -%}\n end", "{{ '}}' }}{{ '{%' }}{{ \"{{\" }}%}", "{ { a } } {a} {", "{{ {'a': 1}['a'] }}{{ {'a': {'b': 2}} }}",
    "{{\n  a\n  +\n  b\n}}", "{% set x = [\n 1,\n 2,\n] %}{{ x }}", "{{ (1,\n2)[0] }}", "{%\nif\na\n%}y{%\nendif\n%}",
    "{% for m in p|selectattr('role', 'equalto', 'user') %}{{ m.n }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for m in p %}{% set role = m.role if m.role != 'system' else 'sys' %}{{ loop.index }}{{ role }} {% endfor %}{{ role is defined }}",
    "{% set m2 = p[0] %}{% set m2 = dict(m2, extra=1) %}{{ m2 }}{{ p[0] }}", "{% set l2 = l + [4] %}{{ l2 }}{{ l }}",
    "{{ raise_exception('boom') }}", "{% if e %}{{ raise_exception('no') }}{% endif %}ok", "{{ nope.x }}", "{{ nope[0] }}", "{{ nope.x.y }}", "{{ nope() }}", "{{ s.nope() }}", "{{ nope + 1 }}", "{{ 1 + 'a' }}", "{{ 'a' + 1 }}",
    "{{ none + 1 }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1 < 'a' }}", "{{ 1 in 2 }}", "{{ 1 in 'a' }}", "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{{ n|length }}", "{{ a|length }}", "{{ s|nofilter }}", "{{ s is notest }}",
    "{% nostatement %}", "{% if a %}", "{% endif %}", "{% for x in l %}{% endif %}{% endfor %}", "{{ a", "{{ a }", "{% if a }}", "{{ (1 }}", "{{ 1) }}", "{{ [1 }}", "{{ }}", "{% set %}", "{% set 1 = 2 %}", "{% for in l %}{% endfor %}", "{% for x l %}{% endfor %}",
    "{{ a b }}", "{{ 'abc }}", "{# open", "{% raw %} x", "{{ a.. }}", "{{ a. }}", "{{ |upper }}", "{{ a| }}", "{{ a is }}", "{{ @ }}", "{{ a ? b : c }}", "{% break %}", "{% macro f(x, x) %}{% endmacro %}", "{% macro f(a=1, b) %}{% endmacro %}",
    "{% macro f(x) %}{% endmacro %}{{ f(1, 2) }}", "{% macro f(x) %}{% endmacro %}{{ f(y=2) }}", "{{ l.append(4) }}", "{{ d.update({'a': 1}) }}", "{% set d.y = 2 %}", "{{ range(1000000)|list }}", "{% set x, y = 1, 2, 3 %}", "{% set x, y = [1] %}",
    "{{ {[]: 1} }}", "{{ [1, 'a']|sort }}", "{{ 'a'|abs }}", "{{ '{'.format(1) }}", "{{ '{} {}'.format(1) }}", "{{ '{x}'.format(1) }}", "{{ '}'.format() }}", "{{ 5|map('upper')|list }}", "{{ d|tojson|nope }}", "{{ nope|tojson }}", "{{ l[::0] }}", "{{ s.upper(1) }}", "{{ s|upper(1) }}", "{{ s|trim('a', 'b') }}", "{{ s.split('') }}", "{{ dict(1) }}", "{{ 'a'.join([1]) }}",
    "{{ 1 if }}", "{{ x is defined is true }}", "{{ a if b if c }}", "{% if a %}{% else %}{% elif b %}{% endif %}", "{% else %}", "{% elif a %}", "{{ 08 }}", "{{ (true if a) is defined }}{{ none.x is defined }}", "{% do l %}", "{% import 'x' as y %}", "{% include 'x' %}", "{% extends 'x' %}",
]
