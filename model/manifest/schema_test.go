package manifest

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gprovision/model/source"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

//go:generate env GPROV_GENERATE=1 go test -count=1 -run ^TestSchema$ .

// schemaFile is the published schema, made from the types of this package by go generate.
const schemaFile = "../../docs/formats/manufData.schema.json"

func makeSchema(t *testing.T) []byte {
	t.Helper()
	texts := map[reflect.Type][]string{reflect.TypeFor[When](): whens(), reflect.TypeFor[ExitStatus](): statuses()}
	r := &jsonschema.Reflector{
		AllowAdditionalProperties: true,
		ExpandedStruct:            true,
		Anonymous:                 true,
		Mapper: func(typ reflect.Type) *jsonschema.Schema {
			if names, ok := texts[typ]; ok {
				cut := map[bool]string{true: "Run", false: "ES"}[typ == reflect.TypeFor[When]()]
				var alts []string
				for _, n := range names {
					alts = append(alts, anyCase(strings.TrimPrefix(n, cut)))
				}
				return &jsonschema.Schema{Type: "string", Pattern: "^(" + anyCase(cut) + ")?(" + strings.Join(alts, "|") + ")$", Description: "One of " + strings.Join(names, ", ") + "; the " + cut + " may be left out."}
			}
			if typ == reflect.TypeFor[ID]() {
				return &jsonschema.Schema{Type: "string", Pattern: "^(0[xX][0-9A-Fa-f_]+|0[bB][01_]+|0[oO]?[0-7_]*|[1-9][0-9_]*)$", Description: `A number such as "0x8086".`}
			}
			return nil
		},
	}
	if err := r.AddGoComments("gprovision/model/manifest", "."); err != nil {
		t.Fatal(err)
	}
	s := r.Reflect(&Manifest{})
	s.ID = "https://gprovision.invalid/manufData.schema.json"
	s.Title = "Provisioning manifest (manufData.json)"
	s.Required = nil
	for name, d := range s.Definitions {
		switch name {
		case "File":
			d.Required = []string{"Src"}
			for key, digits := range map[string]string{"Sha1": "40", "Sha256": "64"} {
				p, _ := d.Properties.Get(key)
				p.Pattern = "^([0-9A-Fa-f]{" + digits + "})?$"
			}
			set(t, d, "Src", func(p *jsonschema.Schema) { p.MinLength = new(uint64(1)) })
			set(t, d, "Size", func(p *jsonschema.Schema) { p.Minimum = "0" })
		case "Disk":
			d.Required = nil
			for _, key := range []string{"Size", "SizeTolerancePct", "Quantity"} {
				set(t, d, key, func(p *jsonschema.Schema) { p.Minimum = "0" })
			}
			set(t, d, "SizeTolerancePct", func(p *jsonschema.Schema) { p.Maximum = "100" })
		case "Specs":
			d.Required = nil
			set(t, d, "RamMegs", func(p *jsonschema.Schema) { p.Minimum = "0" })
		default:
			d.Required = nil
		}
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func set(t *testing.T, d *jsonschema.Schema, key string, f func(*jsonschema.Schema)) {
	t.Helper()
	p, ok := d.Properties.Get(key)
	if !ok {
		t.Fatalf("the schema has no %s", key)
	}
	f(p)
}

// anyCase returns a regular expression for s in any case.
func anyCase(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString("[" + strings.ToUpper(string(r)) + strings.ToLower(string(r)) + "]")
	}
	return b.String()
}

// TestSchema fails if the published schema is not the one that the types give.
func TestSchema(t *testing.T) {
	want := makeSchema(t)
	if os.Getenv("GPROV_GENERATE") == "1" {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run 'go generate ./model/manifest'", schemaFile)
	}
}

// TestSchemaAgrees feeds the sample, whole and broken, to an independent validator: what the schema refuses Check refuses too,
// and what is wrong in its shape both refuse.
func TestSchemaAgrees(t *testing.T) {
	doc, err := validator.UnmarshalJSON(bytes.NewReader(makeSchema(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	shape := []string{"", `"RamMegs": 1234`, `"Src": "norm_boot"`, `"afterpwset"`, `"0x8086"`, `"Vendor": "QEMU"`, `"Verbose": true`, `"Size": 7`, `"SizeTolerancePct": 1`, `"LogEndpoint": "https://10.0.2.2:65432/"`}
	with := []string{"", `"RamMegs": -1`, `"Src": ""`, `"later"`, `"x"`, `"Vendor": 1`, `"Verbose": "yes"`, `"Size": -7`, `"SizeTolerancePct": 101`, `"LogEndpoint": 1`}
	for i := range shape {
		s := strings.Replace(sample, shape[i], with[i], 1)
		v, err := validator.UnmarshalJSON(strings.NewReader(s))
		if err != nil {
			t.Fatal(err)
		}
		bySchema := schema.Validate(v)
		ps := slices.DeleteFunc(Check([]byte(s), stock), func(p Problem) bool { return p.Warning })
		if (bySchema == nil) != (source.Join(ps) == nil) {
			t.Errorf("%s: schema says %v, Check says %v", with[i], bySchema, ps)
		}
		if (bySchema == nil) != (i == 0) {
			t.Errorf("%s: schema says %v", with[i], bySchema)
		}
	}
}
