package registry

import "github.com/falaj/falaj/internal/union"

// The words of which names, addresses and vehicles are composed. The order is
// part of the data: a word added in the middle makes other people.

func t(ar, en string) union.Text { return union.Text{Ar: ar, En: en} }

var men = [...]union.Text{
	t("محمد", "Mohammed"), t("أحمد", "Ahmed"), t("علي", "Ali"), t("خالد", "Khalid"), t("عبدالله", "Abdullah"), t("سعيد", "Saeed"),
	t("سالم", "Salem"), t("حمد", "Hamad"), t("ناصر", "Nasser"), t("يوسف", "Yousef"), t("إبراهيم", "Ibrahim"), t("عمر", "Omar"),
	t("عبدالرحمن", "Abdulrahman"), t("عبدالعزيز", "Abdulaziz"), t("فهد", "Fahad"), t("سلطان", "Sultan"), t("راشد", "Rashid"), t("ماجد", "Majid"),
	t("بدر", "Badr"), t("طلال", "Talal"), t("جاسم", "Jassim"), t("عيسى", "Isa"), t("حسن", "Hassan"), t("حسين", "Hussain"),
	t("مبارك", "Mubarak"), t("هلال", "Hilal"), t("زايد", "Zayed"), t("منصور", "Mansour"), t("تركي", "Turki"), t("فيصل", "Faisal"),
	t("صالح", "Saleh"), t("غانم", "Ghanim"), t("عادل", "Adel"), t("وليد", "Waleed"), t("طارق", "Tariq"), t("زياد", "Ziyad"),
	t("مشعل", "Mishal"), t("نواف", "Nawaf"), t("عبدالملك", "Abdulmalik"), t("حمود", "Hamoud"), t("سيف", "Saif"), t("خليفة", "Khalifa"),
	t("مروان", "Marwan"), t("هاني", "Hani"), t("سامي", "Sami"), t("نبيل", "Nabil"), t("كريم", "Karim"), t("ياسر", "Yasser"),
}

var women = [...]union.Text{
	t("فاطمة", "Fatima"), t("مريم", "Maryam"), t("عائشة", "Aisha"), t("نورة", "Noura"), t("سارة", "Sara"), t("لطيفة", "Latifa"),
	t("شيخة", "Shaikha"), t("موزة", "Moza"), t("هند", "Hind"), t("ريم", "Reem"), t("منى", "Mona"), t("ليلى", "Layla"),
	t("خديجة", "Khadija"), t("زينب", "Zainab"), t("آمنة", "Amna"), t("حصة", "Hessa"), t("دانة", "Dana"), t("لولوة", "Lulwa"),
	t("أسماء", "Asma"), t("هدى", "Huda"), t("سلمى", "Salma"), t("رقية", "Ruqayya"), t("بدرية", "Badriya"), t("عبير", "Abeer"),
	t("أمل", "Amal"), t("إيمان", "Iman"), t("جواهر", "Jawaher"), t("غالية", "Ghalia"), t("شمسة", "Shamsa"), t("وضحى", "Wadha"),
	t("نجلاء", "Najla"), t("رانيا", "Rania"), t("ياسمين", "Yasmin"), t("هالة", "Hala"), t("سميرة", "Samira"), t("عفاف", "Afaf"),
}

var gulfFamilies = [...]union.Text{
	t("المنصوري", "Al Mansouri"), t("الهاشمي", "Al Hashimi"), t("الكعبي", "Al Kaabi"), t("الزعابي", "Al Zaabi"), t("الشامسي", "Al Shamsi"),
	t("البلوشي", "Al Balushi"), t("الحارثي", "Al Harthi"), t("المعمري", "Al Maamari"), t("الرواحي", "Al Rawahi"), t("السيابي", "Al Siyabi"),
	t("الدوسري", "Al Dosari"), t("القحطاني", "Al Qahtani"), t("العتيبي", "Al Otaibi"), t("الشمري", "Al Shammari"), t("الحربي", "Al Harbi"),
	t("الغامدي", "Al Ghamdi"), t("الزهراني", "Al Zahrani"), t("المطيري", "Al Mutairi"), t("العنزي", "Al Anazi"), t("الرشيدي", "Al Rashidi"),
	t("الكواري", "Al Kuwari"), t("المري", "Al Marri"), t("النعيمي", "Al Nuaimi"), t("السليطي", "Al Sulaiti"), t("المهندي", "Al Mohannadi"),
	t("البنعلي", "Al Binali"), t("الجودر", "Al Jowder"), t("القصاب", "Al Qassab"), t("العلوي", "Al Alawi"), t("الموسوي", "Al Mousawi"),
	t("العجمي", "Al Ajmi"), t("الفضلي", "Al Fadhli"), t("الكندري", "Al Kandari"), t("العازمي", "Al Azmi"), t("الظفيري", "Al Dhafiri"),
	t("المزروعي", "Al Mazrouei"), t("السويدي", "Al Suwaidi"), t("الفلاسي", "Al Falasi"), t("الظاهري", "Al Dhaheri"), t("العامري", "Al Ameri"),
	t("الحوسني", "Al Hosani"), t("البوسعيدي", "Al Busaidi"), t("الخروصي", "Al Kharusi"), t("الشحي", "Al Shehhi"), t("الجابري", "Al Jabri"),
	t("الأنصاري", "Al Ansari"), t("العمادي", "Al Emadi"), t("الصفار", "Al Saffar"), t("البحارنة", "Al Baharna"), t("التميمي", "Al Tamimi"),
}

var egyptianFamilies = [...]union.Text{
	t("السيد", "El Sayed"), t("عبدالحميد", "Abdelhamid"), t("حسنين", "Hassanein"), t("الشافعي", "El Shafei"), t("المصري", "El Masry"),
	t("رمضان", "Ramadan"), t("شحاتة", "Shehata"), t("البنا", "El Banna"), t("النجار", "El Naggar"), t("الحداد", "El Haddad"),
	t("سليمان", "Soliman"), t("فوزي", "Fawzy"), t("منصور", "Mansour"), t("الجندي", "El Gendy"), t("الشريف", "El Sherif"),
	t("بكر", "Bakr"), t("عطية", "Attia"), t("غريب", "Gharib"), t("زكي", "Zaki"), t("درويش", "Darwish"),
	t("صبري", "Sabry"), t("الفقي", "El Fiqi"), t("حجازي", "Hegazy"), t("مرسي", "Morsy"), t("نجيب", "Naguib"),
}

var makes = [...]union.Text{
	t("تويوتا لاند كروزر", "Toyota Land Cruiser"), t("تويوتا كامري", "Toyota Camry"), t("تويوتا هايلكس", "Toyota Hilux"), t("نيسان باترول", "Nissan Patrol"),
	t("نيسان صني", "Nissan Sunny"), t("لكزس إل إكس", "Lexus LX"), t("هيونداي إلنترا", "Hyundai Elantra"), t("كيا سبورتاج", "Kia Sportage"),
	t("هوندا أكورد", "Honda Accord"), t("فورد إكسبلورر", "Ford Explorer"), t("شيفروليه تاهو", "Chevrolet Tahoe"), t("ميتسوبيشي باجيرو", "Mitsubishi Pajero"),
	t("مازدا 6", "Mazda 6"), t("جي إم سي يوكون", "GMC Yukon"), t("مرسيدس أكتروس", "Mercedes Actros"), t("إيسوزو إن بي آر", "Isuzu NPR"),
}

var colours = [...]union.Text{
	t("أبيض", "white"), t("أسود", "black"), t("فضي", "silver"), t("رمادي", "grey"), t("أحمر", "red"), t("أزرق", "blue"), t("ذهبي", "gold"), t("بني", "brown"),
}

var trades = [...]struct {
	isic string // ISIC Rev. 4 class
	name union.Text
}{
	{"4690", t("التجارة العامة", "General Trading")}, {"4100", t("المقاولات", "Contracting")}, {"4923", t("النقل البري", "Road Transport")},
	{"5610", t("المطاعم", "Restaurants")}, {"6201", t("البرمجيات", "Software")}, {"5229", t("الخدمات اللوجستية", "Logistics")},
	{"4520", t("صيانة السيارات", "Vehicle Maintenance")}, {"1071", t("المخابز", "Bakeries")}, {"6810", t("العقارات", "Real Estate")},
	{"8620", t("العيادات الطبية", "Medical Clinics")}, {"7710", t("تأجير السيارات", "Car Rental")}, {"0311", t("صيد الأسماك", "Fishing")},
}

// country is what a state's registers look like.
type country struct {
	name     union.Text
	cities   []union.Text
	families []union.Text
	bin      bool // "son of" and "daughter of" stand in names
	company  int  // digits of a company's number
	form     union.Text
	currency string
	minor    int64 // minor units of the currency
}

func countryOf(st union.State) (country, bool) {
	gulf := gulfFamilies[:]
	switch st {
	case "BH":
		return country{t("البحرين", "Bahrain"), []union.Text{t("المنامة", "Manama"), t("المحرق", "Muharraq"), t("الرفاع", "Riffa"), t("مدينة حمد", "Hamad Town"), t("سترة", "Sitra")},
			gulf, true, 6, t("ذ.م.م", "W.L.L."), "BHD", 1000}, true
	case "SA":
		return country{t("السعودية", "Saudi Arabia"), []union.Text{t("الرياض", "Riyadh"), t("جدة", "Jeddah"), t("الدمام", "Dammam"), t("أبها", "Abha"), t("تبوك", "Tabuk"), t("حائل", "Hail")},
			gulf, true, 10, t("ذ.م.م", "LLC"), "SAR", 100}, true
	case "AE":
		return country{t("الإمارات", "United Arab Emirates"), []union.Text{t("أبوظبي", "Abu Dhabi"), t("دبي", "Dubai"), t("الشارقة", "Sharjah"), t("العين", "Al Ain"), t("رأس الخيمة", "Ras Al Khaimah")},
			gulf, true, 7, t("ذ.م.م", "LLC"), "AED", 100}, true
	case "KW":
		return country{t("الكويت", "Kuwait"), []union.Text{t("مدينة الكويت", "Kuwait City"), t("السالمية", "Salmiya"), t("حولي", "Hawally"), t("الجهراء", "Jahra"), t("الأحمدي", "Ahmadi")},
			gulf, false, 6, t("ذ.م.م", "W.L.L."), "KWD", 1000}, true
	case "OM":
		return country{t("عُمان", "Oman"), []union.Text{t("مسقط", "Muscat"), t("صلالة", "Salalah"), t("صحار", "Sohar"), t("نزوى", "Nizwa"), t("صور", "Sur")},
			gulf, true, 7, t("ش.م.م", "LLC"), "OMR", 1000}, true
	case "QA":
		return country{t("قطر", "Qatar"), []union.Text{t("الدوحة", "Doha"), t("الريان", "Al Rayyan"), t("الوكرة", "Al Wakrah"), t("الخور", "Al Khor")},
			gulf, true, 6, t("ذ.م.م", "W.L.L."), "QAR", 100}, true
	case "EG":
		return country{t("مصر", "Egypt"), []union.Text{t("القاهرة", "Cairo"), t("الإسكندرية", "Alexandria"), t("الجيزة", "Giza"), t("أسوان", "Aswan"), t("المنصورة", "Mansoura"), t("طنطا", "Tanta")},
			egyptianFamilies[:], false, 6, t("ش.ذ.م.م", "LLC"), "EGP", 100}, true
	}
	return country{}, false
}
