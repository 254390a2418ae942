package policy

import (
	"fmt"

	"github.com/falaj/falaj/internal/union"
)

// Base is the Cedar text that a state may start from. As consumer its own
// subsystems may ask for any purpose that the union knows; as provider it
// answers by agreement alone, and never without such a purpose.
func Base(st union.State) string {
	return fmt.Sprintf(`// What %[1]s starts from. Agreements are not in here: each is a permit of its own.

@id("own-subsystems")
@en("Subsystems of %[1]s may call for any purpose that the union knows.")
@ar("يجوز لأنظمة الدولة %[1]s أن تطلب الخدمات لأي غرض معروف لدى الاتحاد.")
permit (principal in State::"%[1]s", action == Action::"call", resource)
when { context.role == "consumer" && context.basis != "" };

@id("no-known-purpose")
@en("Nobody is answered without a purpose that the union knows.")
@ar("لا يُجاب أي طلب ليس له غرض معروف لدى الاتحاد.")
forbid (principal, action == Action::"call", resource in State::"%[1]s")
when { context.role == "provider" && context.basis == "" };
`, st)
}
