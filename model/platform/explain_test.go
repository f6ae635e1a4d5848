package platform

import (
	"strings"
	"testing"
)

// TestExplain: one variant is chosen at most, that of Identify, and each other one has the rule that keeps it from being so.
func TestExplain(t *testing.T) {
	v := func(code, mfg, prod, expr, cpu string) Variant {
		return Variant{DevCodeName: code, DmiMbMfg: mfg, DmiProdName: prod, DmiProdModelRegex: expr, CPU: cpu}
	}
	tab := &Table{Variants: []Variant{
		v("maker", "Other", "fox", "", ""), v("product", "ACME", "owl", "", ""), v("model", "ACME", "fox", "^Z", ""),
		v("broken", "ACME", "fox", "(", ""),
		v("cpu", "ACME", "fox", "", "fast"), v("system", "ACME", "hen", "", ""), v("chosen", "ACME", "fox", "^K", "slow"),
		v("later", "ACME", "fox", "", ""),
	}}
	dmi := someDMI{words: map[string]string{
		"baseboard-manufacturer": "ACME", "baseboard-product-name": "fox", "system-manufacturer": "ACME", "system-product-name": "hen",
	}, fields: map[string]string{"1[0] SKU Number": "K1"}, cpus: []string{"slow"}}
	want := map[string]string{
		"maker":   `the manufacturer of the baseboard is "ACME", and DmiMbMfg "Other"; the manufacturer of the system is`,
		"product": `the product name of the baseboard is "fox", and DmiProdName "owl"; the product name of the system is "hen"`,
		"model":   `"K1" (DMI type 1, SKU Number) does not match DmiProdModelRegex ^Z; the product name of the system`,
		"broken":  `DmiProdModelRegex is no expression: `,
		"cpu":     `the processors are ["slow"], and CPU has ["fast"]`,
		"system":  `it fits the system, and chosen fits the baseboard, which counts first`,
		"chosen":  `manufacturer and product name of the baseboard are DmiMbMfg and DmiProdName, and "K1" (DMI type 1, SKU Number) matches "^K"`,
		"later":   `it fits too, and chosen comes first in the table`,
	}
	for _, r := range Explain(tab, dmi) {
		if !strings.HasPrefix(r.Why, want[r.DevCodeName]) || r.Chosen != (r.DevCodeName == "chosen") {
			t.Errorf("%+v, want %s", r, want[r.DevCodeName])
		}
	}
	dmi.words["baseboard-product-name"], dmi.words["system-product-name"] = "cow", "cow"
	for _, r := range Explain(tab, dmi) {
		if r.Chosen || r.Why == "" {
			t.Errorf("an unknown machine: %+v", r)
		}
	}
}
