//! The words of a share's page in each language.

use crate::render::Language;

/// Every text. `{names}` in braces are filled in.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) title: &'static str,
    pub(super) intro: &'static str,
    pub(super) intro_alone: &'static str,
    pub(super) share_title: &'static str,
    pub(super) share_note: &'static str,
    pub(super) keep_title: &'static str,
    pub(super) keep: [&'static str; 4],
    pub(super) use_title: &'static str,
    pub(super) use_meet: &'static str,
    pub(super) use_type: &'static str,
    pub(super) use_look: &'static str,
    pub(super) use_recover: &'static str,
    pub(super) use_after: &'static str,
    pub(super) use_errors: &'static str,
    pub(super) people_title: &'static str,
    pub(super) people: [&'static str; 4],
    pub(super) footer: &'static str,
}

pub(super) fn of(language: Language) -> &'static Texts {
    language.pick(&ENGLISH, &PORTUGUESE)
}

const ENGLISH: Texts = Texts {
    title: "Share {index} of {total}: {service}",
    intro: "The key of the backups of {service} (repository {repository}) was split into {total} shares. Any {threshold} of them open the backups, fewer open nothing and tell nothing. This page is one share.",
    intro_alone: "The key of the backups of {service} (repository {repository}) was made into {total} shares, and each of them opens the backups alone. This page is one: keep it as you would keep the key.",
    share_title: "The share",
    share_note: "Set {set}. The code holds the same as the lines. Letters may be typed small; the two characters at the end of each line are its checksum.",
    keep_title: "How to keep it",
    keep: [
        "Keep it on paper, in a closed envelope, where no other share of this set is and where the machines of the service are not.",
        "Do not photograph, copy or send it. Whoever has {threshold} of the pages, or of their pictures, can read every backup.",
        "Delete the file that this page was printed from.",
        "If it is lost or was seen, say so: new shares are made with `retoma key rotate`, and the old ones then open nothing.",
    ],
    use_title: "How it is used",
    use_meet: "Bring together people who hold {threshold} different shares of this set, on a machine with Linux and the program `retoma`, as root.",
    use_type: "For each share, write its five lines into a file that only root may read: type them, then Enter, then Ctrl and D. Or scan the code and paste what it holds. Name the files share-1, share-2 and so on.",
    use_look: "Give the login to the storage as the recovery sheet says, and see the plan. Nothing is changed.",
    use_recover: "Bring everything back.",
    use_after: "When all is well, delete the files and make new shares: these were seen together.",
    use_errors: "A line that was typed wrongly is named by its number. A share that is damaged or of another set is named by the number of the share.",
    people_title: "People",
    people: ["Who holds this share", "Where it is kept", "Who holds the others", "Handed over on, by"],
    footer: "Retoma {version}; set {set}, share {index} of {total}.",
};

const PORTUGUESE: Texts = Texts {
    title: "Parte {index} de {total}: {service}",
    intro: "A chave dos backups de {service} (repositório {repository}) foi dividida em {total} partes. Quaisquer {threshold} delas abrem os backups; menos do que isso não abre nem revela nada. Esta página é uma parte.",
    intro_alone: "A chave dos backups de {service} (repositório {repository}) foi posta em {total} partes, e cada uma delas abre os backups sozinha. Esta página é uma: guarde-a como guardaria a chave.",
    share_title: "A parte",
    share_note: "Conjunto {set}. O código contém o mesmo que as linhas. As letras podem ser digitadas em minúsculas; os dois caracteres no fim de cada linha são a sua soma de verificação.",
    keep_title: "Como guardar",
    keep: [
        "Guarde-a em papel, num envelope fechado, onde não haja outra parte deste conjunto e longe das máquinas do serviço.",
        "Não fotografe, não copie, não envie. Quem tiver {threshold} das páginas, ou fotos delas, consegue ler todos os backups.",
        "Apague o arquivo do qual esta página foi impressa.",
        "Se ela se perder ou for vista, avise: partes novas são feitas com `retoma key rotate`, e as antigas deixam de abrir.",
    ],
    use_title: "Como usar",
    use_meet: "Reúna pessoas que tenham {threshold} partes diferentes deste conjunto, numa máquina com Linux e o programa `retoma`, como root.",
    use_type: "Para cada parte, escreva as cinco linhas num arquivo que só o root possa ler: digite-as, depois Enter, depois Ctrl e D. Ou leia o código e cole o que ele contém. Chame os arquivos de share-1, share-2 e assim por diante.",
    use_look: "Informe o acesso ao armazenamento como diz a folha de recuperação e veja o plano. Nada é alterado.",
    use_recover: "Traga tudo de volta.",
    use_after: "Quando tudo estiver bem, apague os arquivos e faça partes novas: estas foram vistas juntas.",
    use_errors: "Uma linha digitada errado é indicada pelo número. Uma parte danificada ou de outro conjunto é indicada pelo número da parte.",
    people_title: "Pessoas",
    people: ["Quem tem esta parte", "Onde está guardada", "Quem tem as outras", "Entregue em, por"],
    footer: "Retoma {version}; conjunto {set}, parte {index} de {total}.",
};
