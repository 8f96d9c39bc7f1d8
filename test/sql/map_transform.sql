-- The mapping language, through retl.transform().
\pset format unaligned
\pset tuples_only on
\pset null '(nothing)'

-- raw JSON keeps its order; what is undefined vanishes from objects and is null in arrays
SELECT retl.transform('{"b": 1, "a": [true, {"@path": "$.none"}, {"x": {"@path": "$.none"}}], "c": {"@path": "$.none"}}', '{}');
SELECT retl.transform('{"@path": "$.none"}', '{"a": 1}');
SELECT retl.transform(NULL, '{}');

-- paths
SELECT retl.transform('[{"@path": "$.a.b[1]"}, {"@path": "$.a[''b''].0.c"}, {"@path": "$.s.length"}, {"@path": "$.s[0]"}, {"@path": "$.f.x"}, {"@path": "$.a.b.-1"}]',
  '{"a": {"b": [{"c": 1}, 2]}, "s": "h\u00e9", "f": 0}');
SELECT retl.transform('{"v": {"@path": "$.d"}}', '{"d": 1, "d": 2, "\u0064": 3}');
SELECT retl.transform('{"v": {"@path": "$."}}', '{ "a" : [ 1,2 ] }');
SELECT retl.transform('{"v": {"@path": {"@template": "{{k}}.x"}}}', '{"k": "o", "o": {"x": "found"}}');

-- numbers keep their digits; in text they have JavaScript's form
SELECT retl.transform('{"v": {"@path": "$.n"}, "t": {"@template": "{{n}}"}}', '{"n": 12345678901234567890}');
SELECT retl.transform('{"v": {"@path": "$.n"}, "t": {"@template": "{{n}}"}}', '{"n": 1.2300}');
SELECT retl.transform('{"t": {"@template": "{{a}} {{b}} {{c}} {{d}} {{e}} {{f}}"}}',
  '{"a": 1e21, "b": 1e-7, "c": -0.0, "d": 0.000001, "e": 1e400, "f": 123456789012345678901234567890}');

-- templates
SELECT retl.transform('{"t": {"@template": "{{a}}|{{b}}|{{c}}|{{d}}|{{none}}|{{ a }}|{{}}"}}', '{"a": "q\"\\\u0001", "b": [1, [2, null]], "c": {}, "d": null}');
SELECT retl.transform('{"two": {"@template": "{{x}}"}, "three": {"@template": "{{{x}}}"}}', '{"x": "{{y}}", "y": "z"}');
SELECT retl.transform('{"t": {"@template": "{{a}}{{b}}"}}', '{"a": "\ud83d", "b": "\ude80 \u0000"}');

-- conditions
SELECT retl.transform('{"a": {"@if": {"exists": {"@path": "$.x"}, "then": "yes", "else": "no"}}, "b": {"@if": {"blank": {"@path": "$.x"}, "then": "yes", "else": "no"}}}', event)
  FROM unnest(ARRAY['{}', '{"x": null}', '{"x": ""}', '{"x": " "}', '{"x": 0}', '{"x": []}', '{"x": [[]]}', '{"x": {}}', '{"x": "0"}']::json[]) AS event;

-- the rest
SELECT retl.transform('{"l": {"@case": {"operator": "lower", "value": {"@path": "$.s"}}}, "u": {"@case": {"operator": "upper", "value": {"@path": "$.s"}}}}', '{"s": "Stra\u00dfe \u00c9T\u00c9"}');
SELECT retl.transform('{"r": {"@replace": {"pattern": "a.", "replacement": "[$&$$]", "ignorecase": true, "value": {"@path": "$.s"}}}}', '{"s": "xA.ya.ab"}');
SELECT retl.transform('{"r": {"@arrayPath": ["$.items", {"id": {"@path": "$.id"}, "n": {"@template": "#{{id}}"}}]}}', '{"items": [{"id": 1}, {"no": 2}]}');
SELECT retl.transform('{"e": {"@json": {"mode": "encode", "value": {"@path": "$.o"}}}, "d": {"@json": {"mode": "decode", "value": {"@path": "$.s"}}}}', '{"o": {"b": 1.50, "2": "\u00e9", "1": null}, "s": " [1, {\"a\": 12345678901234567890}] "}');
SELECT retl.transform('{"f": {"@flatten": {"separator": ".", "value": {"@path": "$.o"}}}}', '{"o": {"a": {"b": [1, {"c": 2}]}, "e": {}, "d": null}}');
SELECT retl.transform('{"m": {"@merge": {"direction": "left", "objects": [{"a": 1}, {"@path": "$.o"}, "xy"]}}}', '{"o": {"a": 2, "b": 3}}');
SELECT retl.transform('{"@transform": {"apply": {"x": {"@path": "$.o.a"}}, "mapping": {"y": {"@path": "$.x"}, "z": {"@path": "$.o"}}}}', '{"o": {"a": 1}}');
SELECT retl.transform('{"__segment_internal_directive": {"@transform": {"apply": {"x": {"@path": "$.o.a"}}}}, "y": {"@path": "$.x"}}', '{"o": {"a": 1}}');
SELECT retl.transform('{"n": {"@excludeWhenNull": {"@path": "$.o"}}}', '{"o": {"a": null, "b": {"c": null}, "d": [null]}}');

-- many events by one mapping, and another mapping for each
SELECT retl.transform('{"n": {"@path": "$.n"}}', json_build_object('n', i)) FROM generate_series(1, 3) i;
SELECT retl.transform(json_build_object('v' || i, json_build_object('@path', '$.n')), '{"n": 1}') FROM generate_series(1, 3) i;

-- errors
\set ON_ERROR_STOP off
SELECT retl.transform('{"a": {"b": {"@nope": 1}}}', '{}');
SELECT retl.transform('{"a": {"@path": 1}, "b": {"@case": "x"}, "c": {"@path": "$.a", "x": 1}}', '{}');
SELECT retl.transform('{"a": {"@replace": {"pattern": "12345678901", "value": "x"}}}', '{}');
SELECT retl.transform('{"a": [{"@nope": 1}]}', '{}');
SELECT retl.transform('{"a": [{"@json": {"mode": "x", "value": 1}}]}', '{}');
SELECT retl.transform('{"a": {"@path": {"@path": "$.x"}}}', '{"x": 1}');
SELECT retl.transform('{"a": 1}', '[]');
SELECT retl.transform('{"a": {"@liquid": "{{ x }}"}}', '{}');
SELECT retl.transform('{"a": {"@sql": "1"}}', '{}');

-- values may be nested as deep as they like while nobody looks into them
SELECT length(retl.transform('{"v": {"@path": "$.x"}}', ('{"x": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::json)::text);
SELECT retl.transform('{"v": {"@json": {"mode": "encode", "value": {"@path": "$.x"}}}}', ('{"x": ' || repeat('[', 3000) || repeat(']', 3000) || '}')::json);
SELECT retl.transform((repeat('[', 3000) || repeat(']', 3000))::json, '{}');
