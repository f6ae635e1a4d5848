package state

import (
	"bytes"
	"encoding/json"

	"gprovision/model/unknown"
)

// rest is what a file of this package holds beside what this program knows: keys that a newer version of the same format has. They are
// written again with the value that was read. A value that was not read, such as a new request, has none. Files that are only ever made
// anew (the key, the hash, the mark, BootFile) have no rest.
type rest struct{ keys unknown.Keys }

func (r *rest) setRest(k unknown.Keys) { r.keys = k }

func (r rest) getRest() unknown.Keys { return r.keys }

// put adds the rest to b, unless there would be more than most bytes then: what the file is for goes before what is not known.
func (r rest) put(b []byte, most int) []byte {
	if out, err := r.keys.Put(b); err == nil && len(out) <= most {
		return out
	}
	return b
}

// remember gives the value at into, which was decoded from b, its rest.
func remember[T any](b []byte, into *T) {
	if r, ok := any(into).(interface{ setRest(unknown.Keys) }); ok {
		r.setRest(unknown.Of(b, *into))
	}
}

// text formats a value, with its rest, as a file of at most that many bytes.
func text(value any, most int) ([]byte, error) {
	lines := func(b []byte) ([]byte, error) {
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return nil, err
		}
		out.WriteByte('\n')
		return out.Bytes(), nil
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	if r, ok := value.(interface{ getRest() unknown.Keys }); ok {
		if whole, err := r.getRest().Put(b); err == nil {
			if out, err := lines(whole); err == nil && len(out) <= most {
				return out, nil
			}
		}
	}
	return lines(b)
}
