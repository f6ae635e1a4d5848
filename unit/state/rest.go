package state

import (
	"bytes"
	"encoding/json"

	"gprovision/model/unknown"
)

// rest holds the keys of a file that this program does not know: a newer version of the same format may add some.
// Writing the value keeps them. A value that was not read from a file, such as a new request, has none. Files that
// are always made from scratch have no rest: the key, the hash, the mark, BootFile.
type rest struct{ keys unknown.Keys }

func (r *rest) setRest(k unknown.Keys) { r.keys = k }

func (r rest) getRest() unknown.Keys { return r.keys }

// addTo adds the rest to b, unless the result would exceed most bytes. The known content of a file takes precedence.
func (r rest) addTo(b []byte, most int) []byte {
	if out, err := r.keys.Put(b); err == nil && len(out) <= most {
		return out
	}
	return b
}

// keepUnknown sets the rest of a value to the unknown keys in b, from which it was decoded.
func keepUnknown[T any](b []byte, into *T) {
	if r, ok := any(into).(interface{ setRest(unknown.Keys) }); ok {
		r.setRest(unknown.Of(b, *into))
	}
}

// marshal formats a value and its rest as a file of at most most bytes.
func marshal(value any, most int) ([]byte, error) {
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
