package platform

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

// schemas are the published ones, made from the types of this package by go generate.
func schemas(t *testing.T) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"appliance.schema.json":      makeSchema(t, &Table{}, "appliance.schema.json", "Appliance table (appliance.json)"),
		"platform_facts.schema.json": makeSchema(t, &factsFile{}, "platform_facts.schema.json", "Platform facts (platform_facts.json)"),
	}
}

// words is a schema for one of some words, in any case.
func words(description string, all ...string) *jsonschema.Schema {
	for i, w := range all {
		var b strings.Builder
		for _, r := range w {
			if l, u := strings.ToLower(string(r)), strings.ToUpper(string(r)); l != u {
				b.WriteString("[" + u + l + "]")
			} else {
				b.WriteRune(r)
			}
		}
		all[i] = b.String()
	}
	return &jsonschema.Schema{Type: "string", Pattern: "^(" + strings.Join(all, "|") + ")$", Description: description}
}

func enum(typ, description string, values ...any) *jsonschema.Schema {
	return &jsonschema.Schema{Type: typ, Enum: values, Description: description}
}

func makeSchema(t *testing.T, of any, name, title string) []byte {
	t.Helper()
	fixed := map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[Bus](): enum("string", "How a disk is connected.", USB, SATA, NVMe, Virtio, SCSI, MMC),
		reflect.TypeFor[LCD](): enum("string", "A Crystalfontz 631 or 635.", "", NoLCD, LCD631, LCD635),
		reflect.TypeFor[Layout](): enum("string", "Whether the recovery volume has a device of its own or is a partition of the main disk.", "",
			OwnDevice, OnMain),
		reflect.TypeFor[VirtType](): enum("integer", "0 bare metal, 1 Hyper-V, 2 KVM, 3 QEMU, 4 VirtualBox, 5 VMware.", 0, 1, 2, 3, 4, 5),
		reflect.TypeFor[Locate]():   words("How the recovery volume is found.", "", string(ByLabel), string(Plan9)),
		reflect.TypeFor[Validate](): words("How a device that may be the recovery device is checked.", "", string(ValidateNone),
			string(ValidateUSB), string(ValidateSATA), string(Validate9p)),
	}
	r := &jsonschema.Reflector{
		AllowAdditionalProperties: true,
		ExpandedStruct:            true,
		Anonymous:                 true,
		Mapper:                    func(typ reflect.Type) *jsonschema.Schema { return fixed[typ] },
	}
	if err := r.AddGoComments("gprovision/model/platform", "."); err != nil {
		t.Fatal(err)
	}
	s := r.Reflect(of)
	s.ID = jsonschema.ID("https://gprovision.invalid/" + name)
	s.Title = title
	if _, facts := of.(*factsFile); facts {
		s.Description = "What the programs of a running system learn of the machine: the variant, and how it was recognised."
		limit(t, s)
	} else {
		s.Required = []string{"Variants"}
		set(t, s, "Version", func(p *jsonschema.Schema) { p.Minimum, p.Maximum = "0", "1" })
		set(t, s, "Variants", func(p *jsonschema.Schema) { p.MinItems = new(uint64(1)) })
		limit(t, s.Definitions["Variant"])
		s.Definitions["Variant"].Required = needed()
	}
	for name, d := range s.Definitions {
		switch name {
		case "RecoveryMedia":
			d.Required = []string{"FsType"}
			set(t, d, "Size", func(p *jsonschema.Schema) { p.Minimum = "0" })
			set(t, d, "SizeTolerancePct", percent)
		case "NICInfo":
			d.Required = nil
			set(t, d, "MACPrefix", func(p *jsonschema.Schema) {
				p.Items = &jsonschema.Schema{Type: "string", Pattern: `^(\*|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){0,5})$`}
			})
		case "DataPartition":
			d.Required = []string{"Label", "Mount"}
			set(t, d, "Label", func(p *jsonschema.Schema) { p.Pattern = dataLabel.String() })
			set(t, d, "Mount", func(p *jsonschema.Schema) { p.Pattern = "^/[!-~]+$" })
		}
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func percent(p *jsonschema.Schema) { p.Minimum, p.Maximum = "0", "100" }

// limit says which values a variant may have.
func limit(t *testing.T, d *jsonschema.Schema) {
	t.Helper()
	for _, key := range []string{"DevCodeName", "DmiMbMfg", "DmiProdName", "SerNumField"} {
		set(t, d, key, func(p *jsonschema.Schema) { p.Pattern = `\S` })
	}
	set(t, d, "NumDataDisks", func(p *jsonschema.Schema) { p.Minimum, p.Maximum = "1", "64" })
	set(t, d, "Disksize", func(p *jsonschema.Schema) { p.Minimum = "1" })
	set(t, d, "SwRaidlevel", func(p *jsonschema.Schema) { p.Enum = []any{-1, 0, 1, 5, 6, 10} })
	set(t, d, "DiskSTol", percent)
	set(t, d, "DiskTTol", percent)
	set(t, d, "GraceSeconds", func(p *jsonschema.Schema) { p.Minimum, p.Maximum = "0", "3600" })
	set(t, d, "LcdPort", func(p *jsonschema.Schema) { p.Pattern = "^(" + strings.Trim(portName.String(), "^$") + ")?$" })
	set(t, d, "FakeraidType", func(p *jsonschema.Schema) { p.Pattern = words("", "", "ddf", "imsm").Pattern })
	for _, key := range []string{"BootArgs", "Console"} {
		set(t, d, key, func(p *jsonschema.Schema) { p.Pattern, p.MaxLength = "^[ -~]*$", new(uint64(1024)) })
	}
}

func set(t *testing.T, d *jsonschema.Schema, key string, f func(*jsonschema.Schema)) {
	t.Helper()
	p, ok := d.Properties.Get(key)
	if !ok {
		t.Fatalf("the schema has no %s", key)
	}
	f(p)
}

// TestSchema fails if the published schemas are not those that the types give. With GPROV_GENERATE=1 it writes them.
func TestSchema(t *testing.T) {
	for name, want := range schemas(t) {
		name = "../../docs/formats/" + name
		if os.Getenv("GPROV_GENERATE") == "1" {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run 'go generate ./model/platform'", name)
		}
	}
}

// compiled returns a schema for an independent validator.
func compiled(t *testing.T, name string) func(text []byte) error {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(schemas(t)[name]))
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
	return func(text []byte) error {
		t.Helper()
		v, err := validator.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return schema.Validate(v)
	}
}

// TestSchemaAgrees feeds a table, whole and broken, to an independent validator: what the schema refuses Check refuses too, and what is
// wrong in its shape both refuse.
func TestSchemaAgrees(t *testing.T) {
	valid := compiled(t, "appliance.schema.json")
	const whole = `{"Version": 1, "Variants": [{
		"_": "a comment", "Familyname": "f", "DevCodeName": "d", "DmiMbMfg": "m", "DmiProdName": "p", "DmiProdModelRegex": ".*",
		"SerNumField": "system-serial-number",
		"NICInfo": {"SharedDiagPorts": [], "WANIndex": 0, "DefaultNamesNoDiag": [], "MACPrefix": ["56:78:90"]},
		"NumDataDisks": 1, "Disksize": 8000000000, "SwRaidlevel": -1, "Virttype": 3, "Lcd": "635", "LcdPort": "ttyS1",
		"DiskTTol": 5, "DiskSTol": 1, "FakeraidType": "iMSM", "BootArgs": "quiet", "Console": "ttyS0", "GraceSeconds": 5,
		"MainDisk": {"Bus": ["nvme"]},
		"RecoveryMedia": {"LocateRDMethod": "BYLABEL", "ValidateRDMethod": "Usb", "Size": 4000000000, "SizeTolerancePct": 2,
			"FsType": "ext4", "Layout": "device"},
		"DataPartition": {"Label": "DATA", "Mount": "/data", "SystemSize": 4000000000}}]}`
	try := func(what, text string, good bool) {
		t.Helper()
		if !json.Valid([]byte(text)) || good != (text == whole) {
			t.Fatalf("%s: nothing is changed, or it is no JSON", what)
		}
		bySchema := valid([]byte(text))
		ps := slices.DeleteFunc(Check([]byte(text)), func(p Problem) bool { return p.Warning })
		if (bySchema == nil) != good || (source.Join(ps) == nil) != good {
			t.Errorf("%s: the schema says %v, Check %v", what, bySchema, ps)
		}
	}
	try("whole", whole, true)
	for _, x := range [][2]string{
		{`"Version": 1`, `"Version": 2`}, {`"Version": 1`, `"Version": "1"`}, {`"d"`, `" "`}, {`"m"`, `""`}, {`"p"`, `7`},
		{`"NumDataDisks": 1`, `"NumDataDisks": 0`}, {`"NumDataDisks": 1`, `"NumDataDisks": 65`}, {`8000000000`, `0`}, {`-1`, `4`},
		{`"Virttype": 3`, `"Virttype": 6`},
		{`"635"`, `"636"`}, {`"ttyS1"`, `"S1"`}, {`"DiskTTol": 5`, `"DiskTTol": 101`}, {`"DiskSTol": 1`, `"DiskSTol": -1`}, {`"iMSM"`, `"md"`},
		{`"quiet"`, `"quiet\n"`}, {`"ttyS0"`, `"ttyS0\u00e4"`}, {`"GraceSeconds": 5`, `"GraceSeconds": 3601`},
		{`["nvme"]`, `["scsi2"]`}, {`["nvme"]`, `"nvme"`},
		{`"BYLABEL"`, `"by label"`}, {`"Usb"`, `"floppy"`}, {`"Size": 4000000000`, `"Size": -1`},
		{`"SizeTolerancePct": 2`, `"SizeTolerancePct": 200`},
		{`"Layout": "device"`, `"Layout": "disk"`}, {`"DATA"`, `"DA TA"`}, {`"/data"`, `"data"`}, {`"56:78:90"`, `"5678"`},
		{"\n			\"FsType\": \"ext4\",", ""},
	} {
		try(x[1], strings.Replace(whole, x[0], x[1], 1), false)
	}
	try("no variant", `{"Variants": []}`, false)
	for _, key := range needed() {
		try("without "+key, strings.Replace(whole, `"`+key+`"`, `"_`+key+`"`, 1), false)
	}
}

// TestFactsSchema: what a unit writes for its programs is what the schema says, and nothing is missing in it.
func TestFactsSchema(t *testing.T) {
	valid := compiled(t, "platform_facts.schema.json")
	for _, v := range Default().Variants {
		b, err := Facts(Identity{Variant: v, Mfg: "m", Prod: "p", SKU: "s", Serial: "S1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(b); err != nil {
			t.Errorf("%s: %v", v.DmiProdName, err)
		}
		for _, key := range []string{"Serial", "Mfg", "DevCodeName", "Disksize"} {
			if err := valid(bytes.Replace(b, []byte(`"`+key+`"`), []byte(`"_"`), 1)); err == nil {
				t.Errorf("%s without %s", v.DmiProdName, key)
			}
		}
	}
}
