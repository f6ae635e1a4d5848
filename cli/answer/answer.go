// Package answer writes what the verbs of gprov and gprov-unit print with --json: one JSON object that begins with the version of its form,
// so that a program that reads it knows what to rely on. docs/compatibility.md says what may change within a version.
//
// It does not know what a verb answers.
package answer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Version is that of all answers. 1 is the first one: answers of gprovision 0.1.0 have none, and lists were bare there.
const Version = 1

// JSON writes v, which becomes a JSON object, with the version as its first key. An object that has a version of its own is an error, and so
// is a list: it goes into an object, under the name of what it holds.
func JSON(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil || keys == nil {
		return fmt.Errorf("write the answer as JSON: it is no object: %.20s", b)
	}
	if _, own := keys["version"]; own {
		return fmt.Errorf("write the answer as JSON: it has a version of its own")
	}
	text := fmt.Sprintf(`{"version":%d`, Version)
	if len(keys) > 0 {
		text += ","
	}
	var out bytes.Buffer
	if err := json.Indent(&out, append([]byte(text), b[1:]...), "", "  "); err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}
