package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Change is one difference between two manifests.
type Change struct {
	// Platform is the code name of the units that it concerns. Empty: all units.
	Platform string `json:"platform,omitempty"`
	// What names the thing, such as "file norm_boot", and Field the part of it that differs, such as "Sha256". Without Field the thing is
	// there in one manifest alone.
	What  string `json:"what"`
	Field string `json:"field,omitempty"`
	// Old and New are the values as in JSON. Empty: there is none.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// String returns the change in one line.
func (c Change) String() string {
	who := "all units"
	if c.Platform != "" {
		who = "platform " + c.Platform
	}
	switch {
	case c.Field != "":
		return fmt.Sprintf("%s: %s: %s: %s -> %s", who, c.What, c.Field, orNothing(c.Old), orNothing(c.New))
	case c.Old == "":
		return fmt.Sprintf("%s: %s is new: %s", who, c.What, c.New)
	}
	return fmt.Sprintf("%s: %s is gone: %s", who, c.What, c.Old)
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// Diff returns what changes for whom from one manifest to another, whose images' names begin with prefix. The order of files, steps and
// alternatives counts where units go by it, the form of the JSON does not.
func Diff(before, after *Manifest, prefix string) []Change {
	old, now := before.things(prefix), after.things(prefix)
	all := slices.Concat(slices.Collect(maps.Keys(old)), slices.Collect(maps.Keys(now)))
	slices.SortFunc(all, func(a, b thing) int {
		return strings.Compare(a.platform+"\x00"+a.name, b.platform+"\x00"+b.name)
	})
	var out []Change
	for _, t := range slices.Compact(all) {
		a, b := old[t], now[t]
		c := Change{Platform: t.platform, What: t.name}
		switch {
		case a == nil:
			c.New = compact(now[t])
			out = append(out, c)
			continue
		case b == nil:
			c.Old = compact(old[t])
			out = append(out, c)
			continue
		}
		for _, field := range slices.Sorted(maps.Keys(union(a, b))) {
			if c.Field, c.Old, c.New = field, a[field], b[field]; c.Old != c.New {
				out = append(out, c)
			}
		}
	}
	return out
}

// thing is a part of a manifest that is there or not, such as a file or a step, of the units of a platform or of all.
type thing struct{ platform, name string }

// fields are the values of a thing by their paths, as in JSON.
type fields map[string]string

func union(a, b fields) fields {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// compact returns all fields in one line.
func compact(f fields) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(f)) {
		parts = append(parts, k+" "+f[k])
	}
	return strings.Join(parts, ", ")
}

// things takes a manifest apart.
func (m *Manifest) things(prefix string) map[thing]fields {
	out := map[thing]fields{}
	put := func(platform, name string, v any) {
		t := thing{platform, name}
		for n := 2; out[t] != nil; n++ { // two of one name
			t.name = fmt.Sprintf("%s (%d)", name, n)
		}
		out[t] = flatten(v)
	}
	put("", "manifest", map[string]any{"LogEndpoint": m.LogEndpoint, "CredentialEndpoint": m.CredentialEndpoint,
		"ApplianceJsonUrl": m.ApplianceJsonUrl, "first image": m.firstImage(prefix)})
	for _, f := range m.Files {
		place, err := f.Place(prefix)
		if err != nil {
			place = f.Src
		}
		f.Dest = ""
		put("", "file "+place, f)
	}
	for _, f := range m.StashFiles {
		put("", "file of the store "+f.Base(), f)
	}
	for _, s := range m.ValidationData {
		put(s.DevCodeName, "specification", s)
	}
	for _, b := range m.BMC {
		put(b.DevCodeName, "management controller", b)
	}
	for _, b := range m.BurnIn {
		put(b.DevCodeName, "burn-in", b)
	}
	for _, p := range m.CustomPlatCfgSteps {
		order := map[When]int{}
		for _, s := range p.ConfigSteps {
			order[s.When]++
			put(p.DevCodeName, fmt.Sprintf("step %q at %s", s.Name, s.When), map[string]any{"place": order[s.When], "step": s})
		}
	}
	return out
}

// firstImage returns the name of the image that units are restored to first.
func (m *Manifest) firstImage(prefix string) string {
	for _, f := range m.Files {
		if f.IsImage(prefix) {
			return f.Base()
		}
	}
	return ""
}

// flatten returns the values of v by their paths. What is empty is left out, as in JSON.
func flatten(v any) fields {
	out := fields{}
	b, err := json.Marshal(v)
	var parsed any
	if err == nil {
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		err = d.Decode(&parsed)
	}
	if err != nil { // it was parsed before
		return fields{"": err.Error()}
	}
	out.add("", parsed)
	return out
}

func (f fields) add(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			f.add(strings.TrimPrefix(path+"."+k, "."), x)
		}
	case []any:
		for i, x := range v {
			f.add(fmt.Sprintf("%s[%d]", path, i), x)
		}
	case nil:
	case string:
		if v != "" {
			f[path] = fmt.Sprintf("%q", v)
		}
	default:
		f[path] = fmt.Sprint(v)
	}
}
